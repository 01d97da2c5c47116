"""Numbers of a grid that are computed once, and when they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import solvers
from sdelab.exact import Gaussian
from sdelab.known_numbers import known_numbers

GRID = np.array([1.0, 0.6, 0.3, 0.1])
CLOCK = -GRID.astype(np.float32)


def flow(sde: sdelab.AbstractAffineSDE) -> sdelab.ProbabilityFlow:
    return sdelab.ProbabilityFlow(sde, Gaussian(jnp.zeros(2), jnp.ones(2) * 0.1).score(sde))


class Counting(solvers.DDIM):
    """DDIM, which counts how often its numbers are computed."""

    calls = []  # noqa: RUF012

    def numbers(self, process, interval, past):
        self.calls.append(None)
        return super().numbers(process, interval, past)


def test_they_are_computed_once():
    Counting.calls.clear()
    x_T = jnp.ones((2, 2))
    first = [sdelab.sample(None, flow(sdelab.VP()), x_T, solver=Counting(), grid=GRID) for _ in range(3)]
    assert len(Counting.calls) == 1
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(
        first[0], sdelab.sample(None, flow(sdelab.VP()), x_T, solver=solvers.DDIM(), grid=GRID)
    )


@pytest.mark.parametrize("solver", [solvers.DDIM(), solvers.DPMSolver3(), solvers.DEIS(4)], ids=repr)
def test_another_process_grid_or_solver_has_others(solver):
    """Each as traced, where nothing is kept; the inner times of the first are close to none of the others."""
    x_T = jnp.asarray([[0.4, -1.0]])
    cases = [(20.0, GRID), (12.0, GRID), (20.0, GRID * 0.9), (20.0, GRID)]

    def sample(beta_max, grid):
        return sdelab.sample(None, flow(sdelab.VP(beta_max=beta_max)), x_T, solver=solver, grid=grid)

    kept = [sample(beta_max, grid) for beta_max, grid in cases]
    traced = [jax.jit(lambda beta_max, grid=grid: sample(beta_max, grid))(beta_max) for beta_max, grid in cases]
    np.testing.assert_allclose(kept, traced, rtol=2e-6)
    np.testing.assert_array_equal(kept[0], kept[3])
    for other in kept[1:3]:
        assert np.all(np.abs(kept[0] - other) > 1e-3 * np.abs(kept[0]))


def test_nothing_is_kept_of_arrays():
    assert known_numbers(solvers.DDIM(), flow(sdelab.VP(beta_max=jnp.asarray(20.0))), CLOCK) is None
    assert known_numbers(solvers.DDIM(), flow(sdelab.VP()), CLOCK) is not None


def test_precision_is_part_of_the_question():
    with jax.enable_x64(True):
        double = known_numbers(solvers.DPMSolver3(), flow(sdelab.VP()), -GRID)
    single = known_numbers(solvers.DPMSolver3(), flow(sdelab.VP()), CLOCK)
    assert double is not None
    assert single is not None
    assert (double.inner.dtype, single.inner.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(single.inner, double.inner, rtol=1e-5)


def test_numbers_that_ask_for_the_score():
    class Wrong(solvers.DDIM):
        def numbers(self, process, interval, past):
            return process.score(jnp.zeros((1, 2)), interval.t0)

    with pytest.raises(TypeError, match="depend on time alone"):
        sdelab.sample(None, flow(sdelab.VP()), jnp.ones((1, 2)), solver=Wrong(), grid=GRID)


def test_a_solver_that_does_not_fit_is_refused_each_time():
    for _ in range(2):
        with pytest.raises(TypeError, match="stochastic solver"):
            sdelab.sample(jax.random.key(0), flow(sdelab.VP()), jnp.ones((1, 2)), solver=solvers.Ancestral(), grid=GRID)
