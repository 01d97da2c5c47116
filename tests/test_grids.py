"""Each grid has equal steps in the quantity it is named after, by a formula of that quantity, and keeps to its interval."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids
from tests.solvers.cases import PROCESSES

SHIFT = 2 * np.log(64 / 256)

# The quantity in which the steps are equal. Levels are read off in float64, by alpha and sigma alone.
EQUAL_STEPS_IN = {
    "uniform": (grids.uniform, lambda t, ratio: t),
    "quadratic": (grids.quadratic, lambda t, ratio: np.sqrt(t)),
    "log_snr": (grids.log_snr, lambda t, ratio: np.log(ratio)),
    "cosine": (grids.cosine, lambda t, ratio: np.arctan(ratio)),
    "shifted": (lambda *args, **ends: grids.shifted(*args, shift=SHIFT, **ends), lambda t, ratio: np.arctan(ratio / 4)),
    "edm": (grids.edm, lambda t, ratio: ratio[: len(t) - 1] ** (1 / 7)),
}


def noise_to_signal(sde, times):
    with jax.enable_x64(True):
        t = jnp.asarray(times)
        return np.asarray(sde.sigma(t) / sde.alpha(t))


@pytest.mark.parametrize("rule", EQUAL_STEPS_IN)
@pytest.mark.parametrize("name", PROCESSES)
def test_steps_are_equal(name, rule):
    sde, (grid, quantity) = PROCESSES[name], EQUAL_STEPS_IN[rule]
    times = grid(sde, 9)
    assert times.dtype == np.float64
    assert times[0] == sde.t_max
    assert times[-1] == (0.0 if rule == "edm" else sde.t_min)
    assert len(times) == 10
    steps = np.diff(quantity(times, noise_to_signal(sde, times)))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


@pytest.mark.parametrize("grid", [grids.cosine, lambda *a, **k: grids.shifted(*a, shift=SHIFT, **k)])
def test_angles_reach_the_data(grid):
    """At sigma = 0 the angle is 0 and the log-SNR infinite."""
    for sde in (sdelab.VP(), sdelab.EDM(), sdelab.RectifiedFlow()):
        times = grid(sde, 6, t_min=0.0)
        angles = np.arctan(noise_to_signal(sde, times) * (1.0 if grid is grids.cosine else 0.25))
        assert times[-1] == 0.0
        np.testing.assert_allclose(angles, np.linspace(angles[0], 0.0, 7), rtol=1e-6, atol=1e-9)


def test_shift():
    """No shift is the cosine grid; images of 256 pixels a side take more steps at high noise, by Hoogeboom's shift."""
    sde = sdelab.VP()
    np.testing.assert_array_equal(grids.shifted(sde, 8, shift=0.0), grids.cosine(sde, 8))
    assert np.all(grids.shifted(sde, 8, shift=SHIFT)[1:-1] > grids.cosine(sde, 8)[1:-1])


def test_a_single_step_has_no_inner_times():
    np.testing.assert_array_equal(grids.cosine(sdelab.VP(), 1, t_min=0.01), [1.0, 0.01])


def test_errors():
    with pytest.raises(ValueError, match=r"shift = inf is not accepted"):
        grids.shifted(sdelab.VP(), 8, shift=np.inf)
    with pytest.raises(ValueError, match=r"t_min = 0.9 must be less than t_max = 0.5"):
        grids.cosine(sdelab.VP(), 8, t_min=0.9, t_max=0.5)
    with pytest.raises(ValueError, match="n = 0"):
        grids.cosine(sdelab.VP(), 0)


def test_kernel_is_needed_and_named(unhooked):
    class Heat(sdelab.AbstractSDE):
        t_min: float = 0.0
        t_max: float = 1.0

        def drift(self, x, t):
            return 0.0 * x

        def diffusion(self, t):
            return 1.0

        def prior_sample(self, key, shape, dtype=None):
            return jax.random.normal(key, shape)

        def prior_log_prob(self, x):
            return -0.5 * jnp.sum(x**2, axis=1)

    for name, grid in {"cosine": grids.cosine, "shifted": lambda *a: grids.shifted(*a, shift=1.0)}.items():
        with pytest.raises(TypeError, match=f"grids.{name} needs a process with a kernel"):
            grid(Heat(), 8)


@pytest.mark.parametrize("solver", [sdelab.solvers.DDIM(), diffrax.Euler()])
def test_times_that_the_state_cannot_tell_apart_are_refused(solver):
    """In float32 two times became one, and a step of length zero; in float64 they are two."""
    flow, grid = sdelab.ProbabilityFlow(sdelab.VP(), lambda x, t: -x), np.array([1.0, 0.5, 0.5 - 1e-9, 0.1])
    with pytest.raises(ValueError, match=r"float32 does not tell apart, near 0\.5"):
        sdelab.sample(None, flow, jnp.ones((2, 3)), solver=solver, grid=grid)
    with jax.enable_x64(True):
        assert np.all(np.isfinite(sdelab.sample(None, flow, jnp.ones((2, 3), jnp.float64), solver=solver, grid=grid)))
