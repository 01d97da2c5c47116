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
from sdelab.solvers.dpm_solver import DPMSolver3
from sdelab.solvers.dpm_solver_multistep import DPMSolverPlusPlus2M
from sdelab.solvers.dpm_solver_plus_plus import DPMSolverPlusPlus3S
from sdelab.solvers.singlestep import AllPoints
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


def test_a_multistep_solver_that_others_have_begun():
    """By its own memory, and not by the number of the step, it knows how many predictions it has made."""
    flow = sdelab.ProbabilityFlow(sdelab.VP(), Gaussian(jnp.zeros(1), jnp.ones(1)).score(sdelab.VP()))
    solver, x = DPMSolverPlusPlus2M(), jnp.ones((2, 1))
    memory, noise = solver.initial_memory(flow, x), jnp.zeros((0, 2, 1))
    later, first = (
        solvers.Interval(jnp.asarray(0.5), jnp.asarray(0.3), jnp.asarray(i, jnp.int32), jnp.asarray(False), noise)
        for i in (3, 0)
    )
    np.testing.assert_array_equal(*(solver.advance(flow, x, step, memory).x for step in (later, first)))


@pytest.mark.parametrize(
    "solver", [DPMSolver3(last=AllPoints()), DPMSolverPlusPlus3S()], ids=["all points", "published"]
)
def test_gradient_by_the_process_of_a_step_to_sigma_0(solver):
    """Central differences say the same. Inner times are constants, and all one there."""
    with jax.enable_x64(True):
        x, t, index, none = (
            jnp.asarray([[0.7], [-0.2]]),
            jnp.asarray(0.3),
            jnp.zeros((), jnp.int32),
            jnp.zeros((0, 2, 1)),
        )

        @jax.jit
        def end(beta_max):
            sde = sdelab.VP(beta_max=beta_max)
            flow = sdelab.ProbabilityFlow(sde, Gaussian(jnp.asarray([0.3]), jnp.asarray([0.5])).score(sde))
            interval = solvers.Interval(t, 0.0 * t, index, index == 0, none, jnp.zeros(2))
            return jnp.sum(jnp.sin(solver.advance(flow, x, interval, None).x))

        d = 1e-4
        difference = (end(20.0 + d) - end(20.0 - d)) / (2 * d)
        np.testing.assert_allclose(jax.jit(jax.grad(end))(20.0), difference, rtol=1e-7)
