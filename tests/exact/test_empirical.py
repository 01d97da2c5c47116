"""The ideal denoiser of a data set, against brute force over all of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP
from sdelab.exact import Empirical, GaussianMixture

DATA = np.random.default_rng(0).normal(size=(23, 4))


def brute_force(x, alpha, sigma):
    """Posterior weights, `(batch, n)`, and log-density in float64 NumPy."""
    logits = -0.5 * np.sum((x[:, None] - alpha * DATA) ** 2, axis=-1) / sigma**2
    top = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - top).sum(axis=1, keepdims=True)
    log_prob = (top + np.log(total))[:, 0] - np.log(len(DATA)) - 2 * np.log(2 * np.pi * sigma**2)
    return np.exp(logits - top) / total, log_prob


@pytest.mark.parametrize("chunk", [1, 5, 22, 23, 1000])
def test_brute_force(chunk):
    with jax.enable_x64(True):
        sde, v = VP(), np.random.default_rng(2).normal(size=(6, 4))

        @jax.jit
        def values(x, t, v):
            score = Empirical(DATA, chunk=chunk).score(sde)
            covariances = score.posterior_covariance_product(x, t, v), score.posterior_covariance_diagonal(x, t)
            return score(x, t), score.denoise(x, t), score.log_prob(x, t), *covariances

        for t in (1e-4, 0.05, 0.4, 1.0):
            alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
            x = alpha * DATA[:6] + sigma * np.random.default_rng(1).normal(size=(6, 4))
            score, denoise, ours, product, diagonal = values(x, t, v)
            weights, log_prob = brute_force(x, alpha, sigma)
            denoised = weights @ DATA
            np.testing.assert_allclose(denoise, denoised, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(ours, log_prob, rtol=1e-11)
            truth = (alpha * denoised - x) / sigma**2
            np.testing.assert_allclose(score, truth, rtol=1e-9, atol=1e-9 * np.abs(truth).max())
            spread = DATA[None] - denoised[:, None]
            covariance = np.einsum("bn,bnd,bne->bde", weights, spread, spread)
            np.testing.assert_allclose(product, np.einsum("bde,be->bd", covariance, v), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(diagonal, np.diagonal(covariance, axis1=1, axis2=2), rtol=1e-9, atol=1e-12)


def test_it_is_the_mixture_without_covariance():
    with jax.enable_x64(True):
        sde = VP()
        empirical, mixture = Empirical(DATA, chunk=7).score(sde), GaussianMixture(DATA, 0.0).score(sde)
        x, t = jax.random.normal(jax.random.key(0), (9, 4)), jnp.linspace(0.02, 1.0, 9)
        for method in ("__call__", "denoise", "noise", "log_prob", "divergence", "posterior_covariance_diagonal"):
            ours, truth = getattr(empirical, method)(x, t), getattr(mixture, method)(x, t)
            np.testing.assert_allclose(ours, truth, rtol=1e-8, atol=1e-10 * np.abs(truth).max())


def test_far_from_all_data():
    """In float32 and 1e4 away, where every weight underflows without the running maximum."""
    score = Empirical(DATA, chunk=5).score(EDM())
    x = jnp.asarray([[1e4, 0.0, 0.0, 0.0]])
    nearest = DATA[np.argmax(DATA[:, 0])]
    np.testing.assert_allclose(score.denoise(x, 0.01)[0], nearest, rtol=1e-5)
    assert np.all(np.isfinite(score.log_prob(x, 0.01)))


def test_a_datum_is_its_own_denoiser_as_noise_vanishes():
    np.testing.assert_allclose(Empirical(DATA).score(EDM()).denoise(jnp.asarray(DATA), 1e-3), DATA, rtol=1e-6)


def test_samples_are_data():
    x = np.asarray(Empirical(DATA).sample(jax.random.key(0), 500))
    index = np.argmin(np.abs(x[:, None] - DATA).sum(axis=-1), axis=1)
    np.testing.assert_array_equal(x, DATA.astype(np.float32)[index])
    assert len(np.unique(index)) == len(DATA)


@pytest.mark.parametrize("method", ["__call__", "log_prob", "divergence", "posterior_covariance_diagonal"])
def test_memory_does_not_grow_with_the_data(method):
    """60 000 images of 784 and a batch of 64: one state per datum would be 12 GB, the data alone are 188 MB."""
    shape, x = (60_000, 28, 28), jax.ShapeDtypeStruct((64, 28, 28), jnp.float32)
    template = Empirical(np.zeros((1, 28, 28)), chunk=256)
    empirical = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(shape, leaf.dtype), template)

    def gradient_too(empirical, x):
        value, pullback = jax.vjp(lambda x: getattr(empirical.score(VP()), method)(x, 0.3), x)
        return value, pullback(value)

    function = jax.jit(lambda empirical, x: getattr(empirical.score(VP()), method)(x, 0.3))
    chunk_of_states = 64 * 256 * 784 * 4
    assert function.lower(empirical, x).compile().memory_analysis().temp_size_in_bytes < 2 * chunk_of_states
    assert (
        jax.jit(gradient_too).lower(empirical, x).compile().memory_analysis().temp_size_in_bytes < 8 * chunk_of_states
    )


@pytest.mark.slow
def test_sixty_thousand_images():
    data = jax.random.uniform(jax.random.key(0), (60_000, 784))
    x = data[:64] + 0.3 * jax.random.normal(jax.random.key(1), (64, 784))
    ours = jax.jit(lambda e, x: e.score(EDM()).denoise(x, 0.3))(Empirical(data), x)
    y = np.asarray(data, np.float64)
    squares = np.sum(y**2, axis=1) - 2 * np.asarray(x, np.float64) @ y.T
    weights = np.exp(-0.5 * (squares - squares.min(axis=1, keepdims=True)) / 0.09)
    np.testing.assert_allclose(ours, weights @ y / weights.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_no_density_without_noise():
    score = Empirical(DATA).score(VP())
    x = jnp.zeros((2, 4))
    for call in (score, score.denoise, score.log_prob):
        with pytest.raises(ValueError, match="no density where sigma"):
            call(x, 0.0)
    assert np.all(np.isfinite(Empirical(DATA).score(VE())(x, 0.0)))  # the published kernel starts at sigma_min


@pytest.mark.parametrize(
    ("data", "chunk", "words"),
    [
        (np.zeros(5), 2, "data have shape"),
        (np.zeros((0, 3)), 2, "at least one datum"),
        (np.zeros((5, 3)), 0, "chunk = 0"),
    ],
)
def test_errors(data, chunk, words):
    with pytest.raises(ValueError, match=words):
        Empirical(data, chunk=chunk)
