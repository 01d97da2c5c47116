"""A batch of many rows has the values of its parts: jaxlib 0.10.2 has sums on CPU that are wrong from 32 769 rows on.

https://github.com/jax-ml/jax/issues/39103
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VP
from sdelab.exact import Empirical, Gaussian, GaussianMixture, LowRank

ROWS, PART = 50_000, 1_000


def distribution(name, d):
    rng = np.random.default_rng(d)
    means, factor = rng.normal(size=(4, d)), rng.normal(size=(4, d, d))
    full = factor @ factor.transpose(0, 2, 1) + np.eye(d)
    return {
        "full": lambda: Gaussian(means[0], full[0]),
        "low_rank": lambda: Gaussian(means[0], LowRank(factor[0, :, :1], 0.2)),
        "mixture_isotropic": lambda: GaussianMixture(means, 0.1),
        "mixture_diagonal": lambda: GaussianMixture(means, rng.uniform(0.1, 1.0, (4, d))),
        "mixture_full": lambda: GaussianMixture(means, full),
        "empirical": lambda: Empirical(means),
    }[name]()


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize(
    "name", ["full", "low_rank", "mixture_isotropic", "mixture_diagonal", "mixture_full", "empirical"]
)
def test_a_batch_has_the_values_of_its_parts(name, d):
    score = distribution(name, d).score(VP())
    x = np.random.default_rng(0).normal(size=(ROWS, d)).astype(np.float32)

    @jax.jit
    def values(x):
        return score(x, 0.3), score.denoise(x, 0.3), score.log_prob(x, 0.3), score.divergence(x, 0.3)

    parts = [values(jnp.asarray(x[i : i + PART])) for i in range(0, ROWS, PART)]
    for whole, *part in zip(values(jnp.asarray(x)), *parts, strict=True):
        together = np.concatenate(part)
        np.testing.assert_allclose(whole, together, rtol=1e-5, atol=1e-5 * np.abs(together).max())
