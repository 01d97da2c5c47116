"""Bits per dimension against quadrature, term by term."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

import sdelab
from sdelab.likelihood import Hutchinson, LogMeanExp, MeanOfDraws, NoResidual, Reconstruction

KEY = jax.random.key(0)
LEVELS, STD = 17, 0.5


class CentredScore(sdelab.score.AbstractScore):
    """The score of N(c, STD^2) under the process, c the condition, one per sample."""

    sde: sdelab.AbstractAffineSDE

    def __call__(self, x, t, condition=None):
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return -(x - alpha * condition) / (alpha**2 * STD**2 + sigma**2)

    def denoise(self, x, t, condition=None):
        return self.sde.denoise(x, t, self(x, t, condition))


def flow(centre):
    sde = sdelab.VP()
    return sdelab.ProbabilityFlow(sde, CentredScore(sde), condition=jnp.asarray(centre, jnp.float32))


def assert_close(values, expected, slack):
    """Means over the last axis, to 4.5 of their standard errors and what solver and prior leave."""
    error = values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])
    np.testing.assert_array_less(np.abs(values.mean(axis=-1) - expected), 4.5 * error + slack)


@pytest.mark.slow
def test_each_term_and_both_averages_against_quadrature():
    """One dimension, 17 levels, t_min = 0.05, where the residual is large. From one run: the terms are means of the
    draws, `per_image` their log-mean-exp, which nears the model's code length itself. Two classes, two centres."""
    repeats, t_min, centres = 24, 0.05, np.array([0.0, 0.3])
    grey, label = (v.reshape(-1) for v in np.meshgrid(np.arange(LEVELS), centres, indexing="ij"))
    process = flow(np.repeat(label, repeats)[:, None])
    result = sdelab.bits_per_dim(
        KEY,
        process,
        np.repeat(grey, repeats)[:, None].astype(np.int32),
        levels=LEVELS,
        t_min=t_min,
        draws=24,
        average=LogMeanExp(),
        batch_size=1000,
    )
    sde = process.sde
    alpha, sigma = float(sde.alpha(t_min)), float(sde.sigma(t_min))
    variance = alpha**2 * STD**2 + sigma**2
    u = (np.arange(2000) + 0.5) / 2000
    x = -1 + 2 * (grey[:, None] + u) / LEVELS - label[:, None]
    density = 0.5 * (alpha**2 * x**2 + sigma**2) / variance + 0.5 * np.log(2 * np.pi * variance)
    residual = 0.5 * ((sigma * alpha * x / variance) ** 2 + (alpha**2 * STD**2 / variance) ** 2 - 1) - np.log(alpha)
    edges = -1 + 2 * np.stack([grey, grey + 1]) / LEVELS - label
    decoded_std = np.sqrt(alpha**2 * STD**4 / variance + (sigma / alpha) ** 2)  # p_{t_min} through the decoder
    code_length = -np.log2(ndtr(edges[1] / decoded_std) - ndtr(edges[0] / decoded_std))
    assert result.offset == np.log2(LEVELS / 2)
    assert_close(result.density.reshape(-1, repeats), density.mean(axis=1) / np.log(2), 2e-3)
    assert_close(result.residual.reshape(-1, repeats), residual.mean(axis=1) / np.log(2), 2e-3)
    assert_close(result.per_image.reshape(-1, repeats), code_length, 2e-3)
    bound = (density + residual).mean(axis=1) / np.log(2) + result.offset
    assert np.all(bound > code_length)
    assert np.all(result.per_image <= result.density + result.residual + result.offset + 1e-9)


@pytest.mark.slow
def test_no_image_is_dropped_and_the_batch_does_not_matter():
    """Seven images by threes; without a residual the density at t_min of the dequantised points; the standard error."""
    grey = np.random.default_rng(0).integers(0, LEVELS, (7, 3))
    centre = np.linspace(-0.5, 0.5, 7)[:, None]
    arguments = dict(levels=LEVELS, t_min=1e-3, residual=NoResidual(), divergence=Hutchinson())
    small = sdelab.bits_per_dim(KEY, flow(centre), grey, batch_size=3, **arguments)
    large = sdelab.bits_per_dim(KEY, flow(centre), grey, batch_size=100, **arguments)
    assert small.per_image.shape == (7,)
    np.testing.assert_allclose(small.per_image, large.per_image, rtol=1e-5)
    np.testing.assert_array_equal(small.residual, 0.0)
    np.testing.assert_allclose(small.mean, np.mean(small.per_image), rtol=1e-12)
    np.testing.assert_allclose(small.standard_error, np.std(small.per_image, ddof=1) / np.sqrt(7), rtol=1e-12)
    np.testing.assert_allclose(small.per_image, small.density + small.offset, rtol=1e-12)


def test_the_averages():
    nats = np.array([[1.0, 500.0], [3.0, 502.0]])
    np.testing.assert_allclose(MeanOfDraws()(nats), [2.0, 501.0])
    np.testing.assert_allclose(LogMeanExp()(nats), np.array([0.0, 499.0]) - np.log((np.exp(-1) + np.exp(-3)) / 2))
    np.testing.assert_allclose(LogMeanExp()(nats[:1]), nats[0])


@pytest.mark.slow
def test_the_residual_vanishes_with_t_min():
    """-log p(x) of a Gaussian: density plus residual at ever smaller t_min, in float32, where sigma falls to 3e-4."""
    sde, x = sdelab.VP(), jnp.linspace(-1.0, 1.0, 4096)[:, None]
    score, keys = sdelab.exact.Gaussian(jnp.zeros(1), STD**2).score(sde), jax.random.split(KEY, 4096)
    exact = 0.5 * (x[:, 0] / STD) ** 2 + 0.5 * np.log(2 * np.pi * STD**2)
    gaps = []
    for t in (0.05, 1e-3, 1e-6):
        xt, rest = Reconstruction()(keys, sdelab.ProbabilityFlow(sde, score), x, jnp.float32(t))
        difference = np.asarray(-score.log_prob(xt, jnp.float32(t)) + rest - exact)
        gaps.append(difference.mean())
        assert abs(difference.mean()) < 4.5 * difference.std() / 64 + float(sde.sigma(t)) ** 2
    assert abs(gaps[2]) < 1e-4


@pytest.mark.usefixtures("unhooked")
def test_errors():
    grey, process = np.array([[16, 0]]), flow(np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"integers in \[0, 15\]"):
        sdelab.bits_per_dim(KEY, process, grey, levels=16)
    with pytest.raises(ValueError, match="count as probability"):
        sdelab.bits_per_dim(KEY, process, grey, levels=17, average=LogMeanExp(), divergence=Hutchinson())
    with pytest.raises(TypeError, match="residual = True"):
        sdelab.bits_per_dim(KEY, process, grey, residual=True)
    with pytest.raises(TypeError, match="average = 'mean'"):
        sdelab.bits_per_dim(KEY, process, grey, average="mean")
    with pytest.raises(TypeError, match="must be a ProbabilityFlow"):
        sdelab.bits_per_dim(KEY, sdelab.ReverseSDE(process.sde, process.score), grey)
    with pytest.raises(ValueError, match="draws = 0"):
        sdelab.bits_per_dim(KEY, process, grey, draws=0)
    without_kernel = sdelab.ProbabilityFlow(OnlyDrift(), lambda x, t: -x)
    with pytest.raises(TypeError, match=r"NoResidual\(\) goes without"):
        sdelab.bits_per_dim(KEY, without_kernel, grey, levels=17)


class OnlyDrift(sdelab.AbstractSDE):
    t_min: float = 1e-3
    t_max: float = 1.0

    def drift(self, x, t):
        return -x

    def diffusion(self, t):
        return jnp.ones_like(jnp.asarray(t, float))

    def prior_sample(self, key, shape, dtype=None):
        return jax.random.normal(key, shape, dtype)

    def prior_log_prob(self, x):
        return jnp.sum(x, axis=1)
