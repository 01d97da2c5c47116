"""The learned uncertainty finds the logarithm of the loss at each noise level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VP
from sdelab.losses import (
    FourierLogVariance,
    SigmaSquared,
    UniformTime,
    denoising_score_matching,
    with_uncertainty,
)

LABELS = jnp.linspace(-2.0, 1.0, 64)


def losses_at(labels):
    return jnp.exp(2.0 * labels) + 0.1


def test_the_best_uncertainty_is_the_logarithm_of_the_mean_loss():
    losses = jnp.asarray([0.2, 0.5, 1.4, 0.1])
    mean = jnp.mean(losses)
    gradient = jax.grad(lambda u: jnp.mean(with_uncertainty(losses, jnp.full((4,), u))))
    np.testing.assert_allclose(gradient(jnp.log(mean)), 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient(jnp.log(mean) + 1.0), 1.0 - np.exp(-1.0), rtol=1e-5)


def test_the_fourier_map_starts_at_zero_and_learns_the_levels():
    uncertainty = FourierLogVariance(features=64)
    params = uncertainty.init()
    np.testing.assert_array_equal(uncertainty(params, LABELS), np.zeros(64))

    @jax.jit
    def train(params):
        def step(params, _):
            grads = jax.grad(lambda p: jnp.mean(with_uncertainty(losses_at(LABELS), uncertainty(p, LABELS))))(params)
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), None

        return jax.lax.scan(step, params, None, length=3000)[0]

    learned = uncertainty(train(params), LABELS)
    np.testing.assert_allclose(learned, jnp.log(losses_at(LABELS)), atol=0.1)


def test_it_belongs_to_the_time_of_each_sample():
    x0, key = jax.random.normal(jax.random.key(0), (6, 2)), jax.random.key(1)
    settings = {"weighting": SigmaSquared(), "time_sampler": UniformTime()}

    def score(x, t):
        return -x

    seen = []

    def log_variance(t):
        seen.append(t)
        return 2.0 * t

    plain = denoising_score_matching(key, score, VP(), x0, **settings)
    uncertain = denoising_score_matching(key, score, VP(), x0, log_variance=log_variance, **settings)
    np.testing.assert_allclose(uncertain, plain * jnp.exp(-2.0 * seen[0]) + 2.0 * seen[0], rtol=1e-6)


def test_a_number_of_features_below_one_is_refused():
    with pytest.raises(ValueError, match="features = 0 is not accepted"):
        FourierLogVariance(features=0)
