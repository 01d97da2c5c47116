"""The loop over a grid gives the states and gradients of diffrax's own loop, and has no branches in it."""

from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.adjoint import ReplayAcceptedSteps
from sdelab.exact import Gaussian
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC

GRIDS = {
    "to the data": np.array([1.0, 0.7, 0.55, 0.3, 0.12, 0.0]),
    "above them": np.array([1.0, 0.7, 0.55, 0.3, 0.12]),
    "fewer steps than a start": np.array([1.0, 0.0]),
}
BY_DIFFRAX = diffrax.DirectAdjoint()
NAMES = ["Heun()", "DPMSolver3()", "UniPC(order=3)", "DEIS(order=4)", "diffrax.Bosh3()", "Ancestral()"]
PREDICTOR_FIRST = "PredictorCorrector(sequence=PredictorFirst())"


def solver_of(name: str) -> Any:
    if name == PREDICTOR_FIRST:
        return sdelab.solvers.PredictorCorrector(sequence=sdelab.solvers.PredictorFirst())
    return {**DETERMINISTIC, **STOCHASTIC}[name]


def reverse_process(name: str, sde: Any) -> Any:
    score = Gaussian(jnp.asarray([0.3, -0.7]), jnp.asarray([0.5, 0.1])).score(sde)
    kind = sdelab.ReverseSDE if name in STOCHASTIC or name == PREDICTOR_FIRST else sdelab.ProbabilityFlow
    return kind(sde, score)


QUICK = {("DEIS(order=4)", "to the data"), ("Heun()", "above them")}
DIFFERENTIATED = {  # one grid for each solver, and both for the one whose step to the data is its own
    ("Heun()", "above them"),
    ("Heun()", "to the data"),
    ("Ancestral()", "above them"),
    ("diffrax.Bosh3()", "above them"),
    ("DPMSolver3()", "to the data"),
    ("UniPC(order=3)", "to the data"),
    ("DEIS(order=4)", "to the data"),
    (PREDICTOR_FIRST, "to the data"),
}


def cases(*, differentiated: bool):
    return [
        pytest.param(name, grid, marks=() if (name, where) in QUICK else pytest.mark.slow, id=f"{name}, {where}")
        for name in [*NAMES, PREDICTOR_FIRST]
        for where, grid in GRIDS.items()
        if ((name, where) in DIFFERENTIATED) == differentiated
        if not name.startswith("diffrax") or grid[-1] > 0.0  # diffrax's evaluate the score at the end of a step
    ]


def endpoint(name, grid, x_T, beta_max, adjoint):
    """A number of the last state, and all states."""
    process = reverse_process(name, sdelab.VP(beta_max=beta_max))
    how: dict[str, Any] = dict(solver=solver_of(name), grid=grid, adjoint=adjoint)
    states = sdelab.trajectory(jax.random.key(1), process, x_T, **how)[1]
    return jnp.sum(jnp.sin(states[-1])), states


@pytest.mark.parametrize(("name", "grid"), cases(differentiated=True))
def test_states_and_gradients_are_those_of_diffrax(name, grid):
    with jax.enable_x64(True):
        x_T = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
        run = jax.jit(jax.value_and_grad(partial(endpoint, name, grid), argnums=(0, 1), has_aux=True), static_argnums=2)
        ours = diffrax.RecursiveCheckpointAdjoint()
        ((_, states), found), ((_, expected), by_diffrax) = (run(x_T, 20.0, adjoint) for adjoint in (ours, BY_DIFFRAX))
        np.testing.assert_allclose(states, expected, rtol=1e-12, atol=1e-13)
        for one, other in zip(found, by_diffrax, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
        assert np.all(np.abs(found[0]) > 0.0)


@pytest.mark.parametrize(("name", "grid"), cases(differentiated=False))
def test_states_are_those_of_diffrax(name, grid):
    with jax.enable_x64(True):
        x_T = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
        run = jax.jit(partial(endpoint, name, grid), static_argnums=2)
        (_, found), (_, expected) = (run(x_T, 20.0, a) for a in (diffrax.RecursiveCheckpointAdjoint(), BY_DIFFRAX))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "where"), sorted(QUICK))
def test_so_are_the_states_where_the_numbers_of_the_grid_are_known_beforehand(name, where):
    with jax.enable_x64(True):
        x_T, process = jnp.asarray([[0.4, -1.0]]), reverse_process(name, sdelab.VP())
        found, expected = (
            sdelab.trajectory(None, process, x_T, solver=solver_of(name), grid=GRIDS[where], adjoint=adjoint)[1]
            for adjoint in (diffrax.RecursiveCheckpointAdjoint(), BY_DIFFRAX)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["Heun()", "DPMSolver3()", "UniPC(order=3)", "DEIS(order=4)"])
def test_no_branch_is_left_in_the_program(name):
    """Above the data. A grid that ends there keeps the one of a singlestep method, and none of a multistep method's start."""
    solver, ddim = solver_of(name), sdelab.solvers.DDIM()
    process, x_T = reverse_process(name, sdelab.VP()), jnp.ones((3, 2))

    def branches(solver, where="above them", adjoint=diffrax.RecursiveCheckpointAdjoint()):
        how: dict[str, Any] = dict(solver=solver, grid=GRIDS[where], adjoint=adjoint)
        return str(jax.make_jaxpr(lambda x: sdelab.sample(None, process, x, **how))(x_T)).count("branches=")

    assert branches(solver) == branches(ddim)
    assert branches(solver, "to the data") == branches(ddim, "to the data") + (solver.opening() == 0)
    assert branches(solver, adjoint=BY_DIFFRAX) > branches(ddim, adjoint=BY_DIFFRAX)


class OneMinusAlphaSquared(sdelab.VP):
    """VP with a sigma that rounds to 0 above t = 0."""

    def sigma(self, t):
        return jnp.sqrt(jnp.maximum(1.0 - self.alpha(t) ** 2, 0.0))


@pytest.mark.parametrize(("sde", "end"), [(OneMinusAlphaSquared(), 1e-7), (sdelab.VP(), 1e-50)], ids=["sigma", "time"])
def test_a_grid_whose_end_is_rounded_to_the_data(sde, end):
    """The last step is that to the data, exact in x = D, whatever the end is called."""
    process, x_T = reverse_process("Heun()", sde), jnp.asarray([[0.5, -1.0]])
    grid = np.array([1.0, 0.5, end])
    for name in ("Heun()", "DPMSolver3()", "DEIS(order=4)"):
        found, expected = (
            sdelab.sample(None, process, x_T, solver=solver_of(name), grid=grid, adjoint=adjoint)
            for adjoint in (diffrax.RecursiveCheckpointAdjoint(), BY_DIFFRAX)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert np.all(np.abs(found) < 2.0)


def test_a_traced_process_may_have_no_noise_at_the_end():
    """VE whose sigma(0) is a parameter, 0: known at run time alone."""

    class Offset(sdelab.VE):
        low: Any = 0.0

        def sigma(self, t):
            return jnp.sqrt(jnp.asarray(self.low) ** 2 + jnp.asarray(t) ** 2)

    def sample(low, adjoint=diffrax.RecursiveCheckpointAdjoint()):
        flow = sdelab.ProbabilityFlow(Offset(low=low), lambda x, t: -x / (0.3 + low**2 + t**2))
        return sdelab.sample(
            None, flow, jnp.ones((1, 2)), solver=solver_of("Heun()"), grid=[1.0, 0.5, 0.0], adjoint=adjoint
        )

    np.testing.assert_allclose(jax.jit(sample)(0.0), sample(0.0, BY_DIFFRAX), rtol=1e-5)


class Wrapper(sdelab.solvers.base.AbstractReverseSolver):
    """A solver that passes on what it must, and does not know of openings."""

    solver: Any
    kind = "deterministic"

    def advance(self, process, x, interval, memory):
        return self.solver.advance(process, x, interval, memory)

    def evaluations(self, steps, to_data):
        return self.solver.evaluations(steps, to_data)

    def draws(self):
        return 0

    def inner_times(self, process, starts, ends):
        return self.solver.inner_times(process, starts, ends)

    def numbers(self, process, interval, past):
        return self.solver.numbers(process, interval, past)

    def remembers(self):
        return self.solver.remembers()

    def initial_memory(self, process, x):
        return self.solver.initial_memory(process, x)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
def test_a_wrapper_that_forgets_the_opening_keeps_the_start(grid):
    process, x_T, inner = reverse_process("DEIS(order=4)", sdelab.VP()), jnp.ones((1, 2)), solver_of("DEIS(order=4)")
    found, expected = (sdelab.sample(None, process, x_T, solver=s, grid=grid) for s in (Wrapper(inner), inner))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_replay_on_a_grid_is_the_loop_itself():
    process, x_T = reverse_process("UniPC(order=3)", sdelab.VP()), jnp.ones((1, 2))
    how: dict[str, Any] = dict(solver=solver_of("UniPC(order=3)"), grid=GRIDS["above them"])
    found, expected = (
        jax.grad(lambda x, a=adjoint: jnp.sum(sdelab.sample(None, process, x, adjoint=a, **how)))(x_T)
        for adjoint in (ReplayAcceptedSteps(), diffrax.RecursiveCheckpointAdjoint())
    )
    np.testing.assert_array_equal(found, expected)
