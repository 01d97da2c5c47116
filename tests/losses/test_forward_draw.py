"""Simulated paths: moments of Euler–Maruyama in closed form, and score matching where there is no kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VP, AbstractSDE
from sdelab.exact import GaussianMixture
from sdelab.losses import (
    DiffusionSquared,
    EulerMaruyamaPath,
    Kernel,
    SigmaSquared,
    UniformTime,
    implicit_score_matching,
    sliced_score_matching,
)

N = 40_000
PI = GaussianMixture(jnp.asarray([[1.0, 0.5], [-0.8, -0.3]]), jnp.asarray([0.3, 0.4]))
PI_SCORE = PI.score(VP())  # at t = 0 that of the mixture itself


class Stationary(AbstractSDE):
    """Langevin dynamics in equilibrium, drift 1/2 g^2 grad log pi: no kernel, and the score is grad log pi at every t."""

    t_min: float = 0.0
    t_max: float = 1.0

    def drift(self, x, t):
        return 0.5 * PI_SCORE(x, 0.0) * (self.diffusion(t) ** 2).reshape((-1,) + (1,) * (x.ndim - 1))

    def diffusion(self, t):
        return 1.0 + jnp.asarray(t) * 1.0

    def prior_sample(self, key, shape, dtype=None):
        return PI.sample(key, shape[0])

    def prior_log_prob(self, x):
        return PI.log_prob(x)


def euler_moments(t, steps):
    """Factor of x0 and variance of the Euler–Maruyama chain of VP, by its recursion."""
    h, factor, variance = t / steps, 1.0, 0.0
    for k in range(steps):
        beta = 0.1 + k * h * 19.9
        factor, variance = factor * (1 - 0.5 * beta * h), variance * (1 - 0.5 * beta * h) ** 2 + beta * h
    return factor, variance


@pytest.mark.parametrize("steps", [5, 40])
def test_a_path_ends_with_the_moments_of_its_chain(steps):
    keys = jax.random.split(jax.random.key(0), N)
    t = jnp.asarray(np.resize([0.1, 0.6], N), jnp.float32)
    x = jax.jit(lambda keys: EulerMaruyamaPath(steps)(keys, VP(), jnp.ones((N, 2)), t))(keys)
    for start, time in enumerate((0.1, 0.6)):
        mean, variance = euler_moments(time, steps)
        values = np.asarray(x[start::2], np.float64)
        assert abs(values.mean() - mean) < 4.5 * np.sqrt(variance / N)
        assert abs(values.var() - variance) < 4.5 * variance * np.sqrt(2 / N)


def test_the_bias_halves_with_the_step():
    alpha, sigma = float(VP().alpha(0.6)), float(VP().sigma(0.6))
    errors = [np.subtract(euler_moments(0.6, steps), (alpha, sigma**2)) for steps in (200, 400, 800)]
    np.testing.assert_allclose(errors[0] / errors[1], 2.0, rtol=0.05)
    np.testing.assert_allclose(errors[1] / errors[2], 2.0, rtol=0.02)


def test_a_path_belongs_to_its_sample():
    keys, x0 = jax.random.split(jax.random.key(0), 6), jnp.ones((6, 2))
    t = jnp.linspace(0.1, 1.0, 6)
    together = EulerMaruyamaPath(4)(keys, VP(), x0, t)
    np.testing.assert_allclose(EulerMaruyamaPath(4)(keys[2:4], VP(), x0[2:4], t[2:4]), together[2:4], rtol=1e-6)


@pytest.mark.parametrize("objective", [implicit_score_matching, sliced_score_matching])
def test_without_a_kernel_the_score_of_the_paths_has_no_gradient_and_its_error_is_the_excess(objective):
    sde, x0 = Stationary(), PI.sample(jax.random.key(0), N)

    @jax.jit
    def losses(theta, x0):
        def score(x, t):
            return PI_SCORE(x, 0.0) + theta * (jnp.sin(2.0 * x) + 0.5)

        settings = {"weighting": DiffusionSquared(), "time_sampler": UniformTime(), "forward": EulerMaruyamaPath(50)}
        return objective(jax.random.key(1), score, sde, x0, **settings)

    down, middle, up = (np.asarray(losses(jnp.asarray(theta), x0), np.float64) for theta in (-1.0, 0.0, 1.0))
    slope, curvature = (up - down) / 2, (up + down) / 2 - middle
    # the path's own error: about 1/2 g^2 h times the third derivative of log pi, 0.02 at h = 1/50
    assert abs(slope.mean()) < 4 * slope.std() / np.sqrt(N) + 0.02
    g2 = (1 + (np.arange(1000) + 0.5) / 1000) ** 2
    error = (np.sin(2 * np.asarray(x0, np.float64)) + 0.5) ** 2  # stationary: x0 has the law of every x_t
    expected = g2.mean() * error.mean()
    spread = np.hypot(curvature.std(), g2.mean() * error.mean(axis=1).std()) / np.sqrt(N)
    assert abs(curvature.mean() - expected) < 4 * spread + 0.02 * expected


def test_a_process_without_a_kernel_is_told_of_paths():
    with pytest.raises(TypeError, match=r"EulerMaruyamaPath\(\) simulates a path"):
        Kernel()(jax.random.split(jax.random.key(0), 2), Stationary(), jnp.ones((2, 2)), jnp.ones(2))
    with pytest.raises(
        TypeError, match=r"SigmaSquared \(DiffusionSquared\(\) does without\) needs a process with a kernel"
    ):
        SigmaSquared()(Stationary(), jnp.ones(2))
    with pytest.raises(ValueError, match="steps = 0"):
        EulerMaruyamaPath(0)
