"""What bad input to the exact distributions gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VP
from sdelab.exact import Empirical, Gaussian, GaussianMixture, LowRank

MEANS = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Gaussian(np.zeros(2), np.ones(3)), r"covariance has shape \(3,\); accepted: \(\), \(2,\), \(2, 2\)"),
        (lambda: Gaussian(np.zeros(2), -1.0), "covariance = -1.0 is not accepted"),
        (lambda: Gaussian(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
        (lambda: Gaussian(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]])), "eigenvalue -1.0"),
        (lambda: Gaussian(np.zeros(2), np.full((2, 2), np.nan)), "not symmetric|eigenvalue nan|finite"),
        (lambda: Gaussian(np.zeros(2), LowRank(np.zeros((3, 1)), 1.0)), r"\(3, 3\); accepted: \(2, 2\)"),
        (lambda: LowRank(np.zeros(3), 1.0), r"factor has shape \(3,\)"),
        (lambda: LowRank(np.zeros((3, 1)), -1.0), "scale = -1.0"),
        (lambda: GaussianMixture(np.zeros(3), 1.0), r"means have shape \(3,\)"),
        (lambda: GaussianMixture(MEANS, np.ones((3, 3))), r"accepted: \(\), \(3,\), \(3, 2\), \(3, 2, 2\)"),
        (lambda: GaussianMixture(MEANS, 1.0, np.ones(2)), r"weights have shape \(2,\)"),
        (lambda: GaussianMixture(MEANS, 1.0, np.array([1.0, 0.0, 1.0])), "weights"),
    ],
)
def test_construction(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("distribution", [Gaussian(np.zeros(2), 1.0), GaussianMixture(MEANS, 1.0)])
def test_evaluation(distribution):
    score = distribution.score(VP())
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\).*event shape \(2,\)"):
        score(jnp.zeros((4, 3)), 0.5)
    with pytest.raises(ValueError, match="t has shape"):
        score(jnp.zeros((4, 2)), jnp.full((3,), 0.5))
    with pytest.raises(ValueError, match="outside the process"):
        score(jnp.zeros((4, 2)), 1.5)
    with pytest.raises(ValueError, match="unconditional"):
        score(jnp.zeros((4, 2)), 0.5, jnp.zeros(4))
    with pytest.raises(ValueError, match="accepted: a scalar"):
        distribution.diffused(VP(), jnp.full((4,), 0.5))


@pytest.mark.parametrize(
    "distribution",
    [
        Gaussian(np.zeros(2), np.ones((2, 2))),
        GaussianMixture(MEANS, 0.0),
        Gaussian(np.zeros(2), LowRank(np.eye(2)[:, :1], 0.0)),
    ],
)
def test_singular_covariances_have_no_density_but_a_score(distribution):
    with pytest.raises(ValueError, match="no density"):
        distribution.log_prob(jnp.zeros((4, 2)))
    assert np.all(np.isfinite(distribution.score(VP())(jnp.ones((4, 2)), 1e-5)))
    assert np.all(np.isfinite(distribution.sample(jax.random.key(0), 3)))


@pytest.mark.parametrize("n", [0, -1, True])
@pytest.mark.parametrize("distribution", [Gaussian(np.zeros(2), 1.0), GaussianMixture(MEANS, 1.0), Empirical(MEANS)])
def test_a_number_of_draws_that_is_none(distribution, n):
    with pytest.raises(ValueError, match=r"n = .* is not accepted; n must be an integer >= 1"):
        distribution.sample(jax.random.key(0), n)
