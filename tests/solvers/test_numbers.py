"""What is computed for a whole grid before the loop is what a step computes for itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import solvers
from sdelab.exact import Gaussian
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC
from sdelab.testing.order import walk

GRID = np.array([1.0, 0.7, 0.55, 0.3, 0.12, 0.0])  # unequal steps, the last one to sigma = 0
NAMES = [
    "Heun()",
    "DPMSolver3()",
    "UniPC(order=3)",
    "DEIS(order=4)",
    "SDEDPMSolverPlusPlus2M()",
    "AncestralStep(Heun())",
]
"""One for each way to be computed: the tests of orders walk by hand, those of moments do not."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_steps_by_hand(name):
    solver: Any = {**DETERMINISTIC, **STOCHASTIC}[name]
    with jax.enable_x64(True):
        sde, random = sdelab.VP(), np.random.default_rng(0)
        score = Gaussian(jnp.asarray([0.3, -0.7]), jnp.asarray([0.5, 0.1])).score(sde)
        process = sdelab.ReverseSDE(sde, score) if solver.kind == "stochastic" else sdelab.ProbabilityFlow(sde, score)
        x_T = jnp.asarray(random.normal(size=(3, 2)))
        noise = jnp.asarray(random.normal(size=(len(GRID) - 1, solver.draws(), 3, 2)))
        by_hand = walk(solver, process, x_T, GRID, noise)
        x = sdelab.sample(None, process, x_T, solver=solver, grid=GRID, noise=solvers.StoredNoise(noise))
        np.testing.assert_allclose(x, by_hand, rtol=1e-11, atol=1e-12)
        assert np.all(np.isfinite(x))


def test_a_solver_asks_for_the_times_of_earlier_steps():
    """`past` is the grid's own, the most recent first, for as many steps as it remembers."""

    class Recorder(solvers.EulerMaruyama):
        def numbers(self, process, interval, past):
            return interval.index, interval.t0, past

        def remembers(self):
            return 3

        def advance(self, process, x, interval, memory):
            index, t0, past = interval.numbers
            before = jnp.minimum(index, 3)  # those made up are not looked at
            total = jnp.sum(jnp.where(jnp.arange(3) < before, past, 0.0))
            return solvers.Step(x + jnp.where(index == 4, total + 10.0 * t0, 0.0), x)

    x_T = jnp.zeros((1, 1))
    process = sdelab.ReverseSDE(sdelab.VP(), lambda x, t: -x)
    x = sdelab.sample(jax.random.key(0), process, x_T, solver=Recorder(), grid=GRID)
    np.testing.assert_allclose(x[0, 0], 0.7 + 0.55 + 0.3 + 10.0 * 0.12, rtol=1e-6)
