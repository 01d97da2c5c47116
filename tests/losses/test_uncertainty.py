"""The best uncertainty of a noise level is the logarithm of its loss. (The published one learns it: tests/nn.)"""

import jax
import jax.numpy as jnp
import numpy as np

from sdelab import VP
from sdelab.losses import (
    SigmaSquared,
    UniformTime,
    denoising_score_matching,
    with_uncertainty,
)


def test_the_best_uncertainty_is_the_logarithm_of_the_mean_loss():
    losses = jnp.asarray([0.2, 0.5, 1.4, 0.1])
    mean = jnp.mean(losses)
    gradient = jax.grad(lambda u: jnp.mean(with_uncertainty(losses, jnp.full((4,), u))))
    np.testing.assert_allclose(gradient(jnp.log(mean)), 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient(jnp.log(mean) + 1.0), 1.0 - np.exp(-1.0), rtol=1e-5)


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
