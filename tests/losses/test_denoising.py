"""Denoising score matching against the published losses, and against what it must be on Gaussian data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP, RectifiedFlow, SubVP
from sdelab._broadcast import expand_right
from sdelab.losses import DiffusionSquared, SigmaSquared, UniformTime, denoising_loss, denoising_score_matching
from sdelab.score import AbstractScore, NetworkScore, NoisePrediction
from sdelab.sde import AbstractAffineSDE

PUBLISHED = {"vp": VP(), "ve": VE(), "subvp": SubVP()}
WEIGHTINGS = {"ism": SigmaSquared(), "lik": DiffusionSquared()}


def published_score(sde, theta=1.0):
    """The score that the fixtures' losses were computed with."""

    def score(x, t):
        variance = (0.6 * sde.alpha(t)) ** 2 + sde.sigma(t) ** 2
        return theta * (-x / expand_right(variance, x) + 0.25 * jnp.sin(3.0 * x))

    return score


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
@pytest.mark.parametrize("name", list(PUBLISHED))
class TestPublished:
    def arguments(self, load_fixture, name, dtype):
        published, sde = load_fixture(f"C_losses/sde_{name}"), PUBLISHED[name]
        t = published["t_f64"] if dtype == jnp.float64 else published["t"]
        return published, sde, *(jnp.asarray(a, dtype) for a in (published["x0"], t, published["z"]))

    def test_per_sample_in_float64(self, load_fixture, name, weighting):
        with jax.enable_x64(True):
            published, sde, x0, t, z = self.arguments(load_fixture, name, jnp.float64)
            loss = np.asarray(denoising_loss(published_score(sde), sde, x0, t, z, weighting=WEIGHTINGS[weighting]))
        half_sum = loss * (x0[0].size / 2)
        np.testing.assert_allclose(loss, published[f"per_sample/mean_{weighting}_f64"], rtol=1e-10)
        np.testing.assert_allclose(half_sum, published[f"per_sample/sum_{weighting}_f64"], rtol=1e-10)
        np.testing.assert_allclose(loss.mean(), published[f"loss/mean_{weighting}_f64"], rtol=1e-10)

    def test_gradient_in_float64(self, load_fixture, name, weighting):
        with jax.enable_x64(True):
            published, sde, x0, t, z = self.arguments(load_fixture, name, jnp.float64)

            def loss(theta):
                score = published_score(sde, theta)
                return jnp.mean(denoising_loss(score, sde, x0, t, z, weighting=WEIGHTINGS[weighting]))

            gradient = jax.grad(loss)(jnp.asarray(1.0, jnp.float64))
        np.testing.assert_allclose(gradient, published[f"dtheta/mean_{weighting}_f64"], rtol=1e-9)
        half_sum = np.asarray(gradient, np.float64) * (x0[0].size / 2)
        np.testing.assert_allclose(half_sum, published[f"dtheta/sum_{weighting}_f64"], rtol=1e-9)

    def test_per_sample_in_float32_equals_the_float64_truth(self, load_fixture, name, weighting):
        published, sde, x0, t, z = self.arguments(load_fixture, name, jnp.float32)
        loss = denoising_loss(published_score(sde), sde, x0, t, z, weighting=WEIGHTINGS[weighting])
        np.testing.assert_allclose(loss, published[f"per_sample/mean_{weighting}_f64"], rtol=2e-5)


class ScaledGaussianScore(AbstractScore):
    """`theta` times the exact score of N(0, v I) data."""

    sde: AbstractAffineSDE
    v: float
    theta: jax.Array | float = 1.0

    def __call__(self, x, t, condition=None):
        return -self.theta * x / expand_right(self.variance(t), x)

    def denoise(self, x, t, condition=None):
        return self.sde.denoise(x, t, self(x, t))

    def variance(self, t):
        return self.sde.alpha(t) ** 2 * self.v + self.sde.sigma(t) ** 2


GAUSSIAN_CASES = [
    (VP(), SigmaSquared(), 1e-5),
    (VE(), SigmaSquared(), 1e-5),
    (SubVP(), SigmaSquared(), 1e-5),
    (RectifiedFlow(), SigmaSquared(), 1e-5),
    (EDM(), SigmaSquared(), 1e-5),
    (VP(), DiffusionSquared(), 0.02),
    (VE(), DiffusionSquared(), 0.02),
]


@pytest.mark.parametrize(("sde", "weighting", "t_min"), GAUSSIAN_CASES)
def test_the_exact_score_is_the_minimum_and_the_excess_is_the_weighted_error(sde, weighting, t_min):
    v, n, d = 0.3, 100_000, 2
    x0 = jnp.sqrt(v) * jax.random.normal(jax.random.key(0), (n, d))
    keys = jax.random.split(jax.random.key(1), n)

    @jax.jit
    def losses(theta):
        score = ScaledGaussianScore(sde, v, theta)
        time_sampler = UniformTime(t_min)
        return denoising_score_matching(keys, score, sde, x0, weighting=weighting, time_sampler=time_sampler)

    _, slope = jax.jvp(losses, (jnp.asarray(1.0),), (jnp.asarray(1.0),))
    slope = np.asarray(slope, np.float64)
    assert abs(slope.mean()) < 4 * slope.std() / np.sqrt(n)

    # E[L(1 + h)] - E[L(1)] = h² E[lambda |s|²]/d with E|s|²/d = 1/variance, integrated over time by the midpoint rule
    h = 0.5
    excess = np.asarray(losses(1.0 + h) - losses(1.0), np.float64)
    with jax.enable_x64(True):
        t = jnp.asarray(t_min + (sde.t_max - t_min) * (np.arange(200_000) + 0.5) / 200_000, jnp.float64)
        expected = h**2 * float(jnp.mean(weighting(sde, t) / ScaledGaussianScore(sde, v).variance(t)))
    assert abs(excess.mean() - expected) < 4 * excess.std() / np.sqrt(n)
    assert excess.std() / np.sqrt(n) < 0.1 * expected  # so that agreeing says something


def draw(keys, score, x0, **settings):
    return denoising_score_matching(
        keys, score, VP(), x0, weighting=SigmaSquared(), time_sampler=UniformTime(), **settings
    )


def test_a_sample_has_its_own_loss_in_any_batch():
    x0, keys = jax.random.normal(jax.random.key(0), (8, 3)), jax.random.split(jax.random.key(1), 8)
    score = published_score(VP())
    together, order = draw(keys, score, x0), jnp.asarray([5, 2, 7])
    np.testing.assert_allclose(draw(keys[order], score, x0[order]), together[order], rtol=1e-6)


def test_a_single_key_is_folded_with_the_position():
    x0, key = jax.random.normal(jax.random.key(0), (4, 3)), jax.random.key(1)
    keys = jnp.stack([jax.random.fold_in(key, i) for i in range(4)])
    np.testing.assert_array_equal(draw(key, published_score(VP()), x0), draw(keys, published_score(VP()), x0))


def test_a_score_with_a_noise_of_its_own_is_taken_at_its_word():
    """Towards the data, where eps = -sigma s loses digits if s is what the network's score form gives."""
    sde, eps = VE(sigma_min=1e-6), jax.random.normal(jax.random.key(0), (4, 3))

    def network(eps, x, c_noise, condition, keys=None):
        return eps

    score = NetworkScore(sde, NoisePrediction(), network, eps)
    loss = denoising_loss(score, sde, jnp.ones((4, 3)), 0.0, eps, weighting=SigmaSquared())
    np.testing.assert_array_equal(loss, np.zeros(4))


def test_the_condition_reaches_the_score():
    def score(x, t, condition):
        return -x * condition[:, None]

    def unconditional(x, t):
        return -x

    x0, keys = jax.random.normal(jax.random.key(0), (3, 2)), jax.random.split(jax.random.key(1), 3)
    np.testing.assert_array_equal(draw(keys, score, x0, condition=jnp.ones(3)), draw(keys, unconditional, x0))
    assert np.all(draw(keys, score, x0, condition=2 * jnp.ones(3)) != draw(keys, unconditional, x0))


def test_dropout_is_on_only_where_the_score_was_given_keys():
    def network(params, x, c_noise, condition, keys=None):
        return x if keys is None else 0.0 * x

    score = NetworkScore(VP(), NoisePrediction(), network, None)
    x0, keys = jax.random.normal(jax.random.key(0), (3, 2)), jax.random.split(jax.random.key(1), 3)
    silent = NetworkScore(VP(), NoisePrediction(), lambda p, x, *_, **__: 0.0 * x, None)
    np.testing.assert_array_equal(draw(keys, score.with_keys(keys), x0), draw(keys, silent, x0))
    assert np.all(draw(keys, score, x0) != draw(keys, silent, x0))


def test_uniform_times_are_uniform_and_do_not_end_at_zero():
    keys = jax.random.split(jax.random.key(0), 50_000)
    for sde, t_min in ((VP(), 1e-5), (EDM(), 0.002), (RectifiedFlow(), 0.0)):
        t = np.sort(np.asarray(UniformTime(t_min)(keys, sde), np.float64))
        assert t[0] >= np.float32(t_min)
        assert t[-1] <= sde.t_max
        distance = np.max(np.abs((t - t_min) / (sde.t_max - t_min) - np.arange(1, 50_001) / 50_000))
        assert distance < 1.95 / np.sqrt(50_000)  # Kolmogorov-Smirnov, one in a thousand


@pytest.mark.parametrize("sde", [VP(), VE(), SubVP()])
def test_weights_are_what_they_are_called(sde):
    t = jnp.asarray([0.01, 0.5, 1.0])
    np.testing.assert_allclose(SigmaSquared()(sde, t), sde.sigma(t) ** 2, rtol=1e-6)
    np.testing.assert_allclose(DiffusionSquared()(sde, t), sde.diffusion(t) ** 2, rtol=1e-6)


def test_what_does_not_fit_is_refused():
    x0 = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match=r"keys has shape \(3,\); accepted: one key, or one per sample, shape \(4,\)"):
        draw(jax.random.split(jax.random.key(0), 3), published_score(VP()), x0)
    with pytest.raises(ValueError, match=r"t_min = -0\.1"):
        UniformTime(-0.1)
    with pytest.raises(ValueError, match=r"t_min = 2\.0 must be less than t_max = 1\.0"):
        UniformTime(2.0)(jax.random.split(jax.random.key(0), 3), VP())
    with pytest.raises(TypeError, match="concrete"):
        eqx.filter_jit(UniformTime)(jnp.asarray(0.1))
