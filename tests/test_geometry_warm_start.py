"""The warm start, and what it saves."""

import math

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.geometry import ErrorCurve, GaussianFlow, GaussianWarmStart, Saving, measure_saving

SDE = sdelab.VP()
GAUSSIAN = sdelab.exact.Gaussian(np.float32([0.5, -1.0]), np.float32([[1.0, 0.3], [0.3, 0.2]]))
MIXTURE = sdelab.exact.GaussianMixture(np.float32([[-1.0, 0.4], [1.2, -0.3]]), np.float32([0.05, 0.02]))
MOMENTS = sdelab.exact.Gaussian(MIXTURE.mean(), MIXTURE.covariance())
GAUSSIAN_FLOW = sdelab.ProbabilityFlow(SDE, GAUSSIAN.score(SDE))
MIXTURE_FLOW = sdelab.ProbabilityFlow(SDE, MIXTURE.score(SDE))


@pytest.mark.slow
def test_it_is_exact_for_gaussian_data():
    """Whatever remains is the solver's error on the rest of the way; right before the data nothing remains."""
    x_T = jax.random.normal(jax.random.key(0), (16, 2))
    truth = GaussianFlow(SDE, GAUSSIAN)(x_T, SDE.t_max, SDE.t_min)
    errors = []
    for t in (0.9, 0.3, 0.0011):
        grid = grids.log_snr(SDE, 8, t_max=t)
        x = GaussianWarmStart(GAUSSIAN, t).sample(None, GAUSSIAN_FLOW, x_T, solver=solvers.Heun(), grid=grid)
        errors.append(float(jnp.max(jnp.abs(x - truth))))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-6


@pytest.mark.slow
def test_it_draws_the_starts_and_the_noise_that_sample_draws():
    """From t = t_max nothing is skipped: the same key is the same sample, from a shape too, with noise on the way."""
    grid = grids.uniform(SDE, 3)
    process = sdelab.ReverseSDE(SDE, GAUSSIAN.score(SDE))
    ours, info = GaussianWarmStart(GAUSSIAN, SDE.t_max).sample_with_info(
        jax.random.key(3), process, (4, 2), solver=solvers.Ancestral(), grid=grid
    )
    plain = sdelab.sample(jax.random.key(3), process, (4, 2), solver=solvers.Ancestral(), grid=grid)
    np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(info.evaluations, 3)


@pytest.mark.slow
def test_on_a_mixture_its_error_grows_towards_the_data():
    """The Gaussian of the same mean and covariance follows the flow while the noise is larger than the structure."""
    x_T = jax.random.normal(jax.random.key(1), (256, 2))
    times, truth = sdelab.trajectory(
        None, MIXTURE_FLOW, x_T, solver=solvers.Heun(), grid=grids.log_snr(SDE, 400, t_min=0.05)
    )
    states = GaussianFlow(SDE, MOMENTS).trajectory(x_T, times)
    errors = jnp.sqrt(jnp.mean((states - truth) ** 2, axis=(1, 2)))[::20]
    errors = errors[errors > 1e-5]  # below, it is the rounding of the two
    assert bool(jnp.all(jnp.diff(errors) > 0))
    assert float(errors[0]) < 1e-4 < 0.1 < float(errors[-1])
    assert len(errors) > 8


@pytest.mark.slow
def test_it_saves_evaluations_at_equal_error():
    x_T = MIXTURE.diffused(SDE, SDE.t_max).sample(jax.random.key(2), 512)
    truth = sdelab.sample(None, MIXTURE_FLOW, x_T, solver=diffrax.Tsit5(), rtol=1e-6, atol=1e-6)
    warm_start = GaussianWarmStart(MOMENTS, t=0.8)
    saving = measure_saving(MIXTURE_FLOW, x_T, truth, warm_start, solver=solvers.Heun(), steps=(12, 24))
    assert saving.cold.evaluations == saving.warm.evaluations == (24.0, 48.0)
    assert all(warm < cold for cold, warm in zip(saving.cold.errors, saving.warm.errors, strict=True))
    assert saving.saved()[0] >= 0.0  # no warm run is cheaper: a lower bound
    assert all(saved > 2.0 for saved in saving.saved()[1:])


@pytest.mark.slow
def test_tolerances_need_no_grid():
    x_T = jax.random.normal(jax.random.key(0), (4, 2))
    x, info = GaussianWarmStart(GAUSSIAN, 0.5).sample_with_info(
        None, GAUSSIAN_FLOW, x_T, solver=diffrax.Tsit5(), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(x, GaussianFlow(SDE, GAUSSIAN)(x_T, SDE.t_max, SDE.t_min), atol=5e-5)
    assert int(jnp.min(info.evaluations)) > 7


def test_equal_error_is_interpolated_in_the_logarithms():
    """Second order, and a warm start that takes a fifth fewer evaluations: a fifth is saved at every error."""
    evaluations = (10.0, 20.0, 40.0)
    cold = ErrorCurve(evaluations, tuple(n**-2.0 for n in evaluations))
    warm = ErrorCurve(evaluations, tuple((1.25 * n) ** -2.0 for n in evaluations))
    assert cold.evaluations_at(25.0**-2) == pytest.approx(25.0)
    assert cold.evaluations_at(1.0) == 10.0
    assert math.isnan(cold.evaluations_at(1e-5))
    saving = Saving(cold, warm)
    assert saving.saved_at(30.0**-2) == pytest.approx(6.0)
    assert saving.saved()[1:] == pytest.approx((4.0, 8.0))
    assert saving.saved()[0] == 0.0  # the first warm run is better already, and no cheaper: a lower bound
    floor = Saving(cold, ErrorCurve(evaluations, (0.005, 0.004, 0.004)))
    assert math.isnan(floor.saved()[2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GaussianWarmStart(GAUSSIAN, 0.0), ValueError, "t = 0.0"),
        (lambda: GaussianWarmStart(SDE, 0.5), TypeError, "gaussian"),
        (lambda: GaussianWarmStart(GAUSSIAN, 1.5)(SDE, jnp.ones((1, 2))), ValueError, "beyond the start"),
        (lambda: GaussianWarmStart(GAUSSIAN, 0.5)(SDE, jnp.ones((1, 3))), ValueError, "event shape"),
        (lambda: run(grid=grids.log_snr(SDE, 4)), ValueError, "from the warm start's t = 0.5"),
        (lambda: run(), ValueError, "grid = None and no tolerances"),
        (lambda: measure(process=sdelab.ReverseSDE(SDE, GAUSSIAN.score(SDE))), TypeError, "ProbabilityFlow"),
        (lambda: measure(truth=jnp.ones((3, 2))), ValueError, "truth has shape"),
        (lambda: measure(steps=()), ValueError, "steps is empty"),
        (lambda: ErrorCurve((1.0,), (1.0,)).evaluations_at(0.0), ValueError, "error"),
    ],
)
def test_bad_input_is_refused(unhooked, call, error, message):
    with pytest.raises(error, match=message):
        call()


def run(**arguments):
    warm_start = GaussianWarmStart(GAUSSIAN, 0.5)
    return warm_start.sample(None, GAUSSIAN_FLOW, jnp.ones((1, 2)), solver=solvers.Heun(), **arguments)


def measure(process=GAUSSIAN_FLOW, truth=jnp.ones((1, 2)), steps=(4,)):
    warm_start = GaussianWarmStart(GAUSSIAN, 0.5)
    return measure_saving(process, jnp.ones((1, 2)), truth, warm_start, solver=solvers.Heun(), steps=steps)
