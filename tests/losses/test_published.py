"""EDM's, DDPM's and SMLD's losses against the published code: per sample and in the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP
from sdelab._broadcast import expand_right
from sdelab.losses import (
    DataError,
    DDPMLevels,
    EDMWeighting,
    LogNormalNoise,
    NoiseOf,
    SigmaSquared,
    SMLDLevels,
    UniformTime,
    denoising_loss,
    discrete_denoising,
    discrete_loss,
)
from sdelab.score import AbstractScore
from sdelab.sde import AbstractAffineSDE


class PublishedDenoiser(AbstractScore):
    """The denoiser that EDM's losses of the fixture were computed with."""

    sde: AbstractAffineSDE
    theta: jax.Array | float = 1.0

    def __call__(self, x, t, condition=None):
        return self.sde.score_from_denoised(x, self.denoise(x, t), t)

    def denoise(self, x, t, condition=None):
        alpha, sigma = (expand_right(value, x) for value in (self.sde.alpha(t), self.sde.sigma(t)))
        y, r = x / alpha, sigma / alpha
        return self.theta * y * 0.25 / (0.25 + r**2) + 0.1 * jnp.sin(2.0 * y / (1.0 + r))


WEIGHTINGS = {"edm": EDMWeighting(0.5), "vp": SigmaSquared(), "ve": SigmaSquared()}
NOISES = {
    "edm": LogNormalNoise(-1.2, 1.2),
    "vp": NoiseOf(VP(beta_min=0.1, beta_max=20.0), UniformTime(1e-5)),
    "ve": NoiseOf(VE(sigma_min=0.02, sigma_max=100.0), UniformTime(0.0)),
}
SCHEDULES = {"edm": EDM(t_max=200.0), "vp": VP()}  # VP at the times of the same noise levels: the same losses


@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("name", list(NOISES))
def test_edm_s_losses(load_fixture, name, schedule):
    published, sde = load_fixture("C_losses/edm_losses"), SCHEDULES[schedule]
    y, z = jnp.asarray(published["y"]), jnp.asarray(published["z"])
    t = sde.log_snr_inverse(-2.0 * jnp.log(jnp.asarray(published[f"{name}/sigma"])))

    def loss(theta):
        score = PublishedDenoiser(sde, theta)
        return denoising_loss(score, sde, y, t, z, weighting=WEIGHTINGS[name], error=DataError())

    wanted = published[f"{name}/loss"].astype(np.float64).reshape(6, -1).mean(axis=1)
    # sigma has gone through the log-SNR and a bisection: 1e-6 of it, and twice that in the weight
    np.testing.assert_allclose(loss(jnp.asarray(1.0)), wanted, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(loss(jnp.asarray(1.0))), published[f"{name}/mean_loss"], rtol=1e-5)
    gradient = jax.grad(lambda theta: jnp.mean(loss(theta)))(jnp.asarray(1.0))
    np.testing.assert_allclose(gradient, published[f"{name}/dtheta_mean"], rtol=2e-5)


@pytest.mark.parametrize("sde", [EDM(t_max=200.0), VP()])
@pytest.mark.parametrize("name", list(NOISES))
def test_edm_s_noise_levels_are_the_quantiles_of_the_published_draws(load_fixture, name, sde):
    published = load_fixture("C_losses/edm_losses")
    if name == "edm":
        uniform = jax.scipy.stats.norm.cdf(jnp.asarray(published["rnd_normal"].ravel()))
    else:
        uniform = jnp.asarray(published["rnd_uniform"].ravel())
        uniform = 1.0 - uniform if name == "vp" else uniform  # the published time runs downwards
    t, weight = NOISES[name].quantile(uniform, sde)
    np.testing.assert_allclose(sde.sigma(t) / sde.alpha(t), published[f"{name}/sigma"], rtol=1e-5)
    np.testing.assert_array_equal(weight, np.ones(6))


def test_both_errors_are_one_loss_in_float64(load_fixture):
    published = load_fixture("C_losses/edm_losses")
    with jax.enable_x64(True):
        y, z = (jnp.asarray(published[name], jnp.float64) for name in ("y", "z"))
        t, score = jnp.asarray(published["edm/sigma"], jnp.float64), PublishedDenoiser(EDM())
        settings = {"weighting": EDMWeighting(0.5)}
        data = denoising_loss(score, EDM(), y, t, z, error=DataError(), **settings)
        noise = denoising_loss(score, EDM(), y, t, z, **settings)
    np.testing.assert_allclose(data, noise, rtol=1e-12)


LEVELS = {"ddpm": DDPMLevels(), "smld": SMLDLevels()}


def discrete_network(name, theta):
    """The networks of the fixtures: a noise for DDPM, a score for SMLD."""
    alpha, sigma = (jnp.asarray(v) for v in LEVELS[name].kernel())

    def network(x, label):
        index = label.astype(jnp.int32)
        a, s = (expand_right(v[index].astype(x.dtype), x) for v in (alpha, sigma))
        score = -x / (a**2 * 0.6**2 + s**2) + 0.25 * jnp.sin(3.0 * x)
        return theta * (-s * score if name == "ddpm" else score)

    return network


@pytest.mark.parametrize("name", list(LEVELS))
def test_discrete_losses(load_fixture, name):
    published = load_fixture(f"C_losses/discrete_{name}")
    x0, z, labels = (jnp.asarray(published[key]) for key in ("x0", "z", "labels"))

    def loss(theta):
        return discrete_loss(discrete_network(name, theta), LEVELS[name], x0, labels, z)

    per_sample, half_sum = np.asarray(loss(jnp.asarray(1.0))), x0[0].size / 2
    np.testing.assert_allclose(per_sample, published[f"per_sample/{name}_mean"], rtol=2e-5)
    np.testing.assert_allclose(half_sum * per_sample, published[f"per_sample/{name}_sum"], rtol=2e-5)
    np.testing.assert_allclose(per_sample.mean(), published[f"loss/{name}_mean"], rtol=2e-5)
    gradient = jax.grad(lambda theta: jnp.mean(loss(theta)))(jnp.asarray(1.0))
    np.testing.assert_allclose(gradient, published[f"dtheta/{name}_mean"], rtol=5e-5)
    np.testing.assert_allclose(half_sum * gradient, published[f"dtheta/{name}_sum"], rtol=5e-5)


def test_the_kernels_of_the_tables_are_the_published_ones(load_fixture):
    ddpm, smld = load_fixture("C_losses/discrete_ddpm"), load_fixture("C_losses/discrete_smld")
    alpha, sigma = DDPMLevels().kernel()
    np.testing.assert_allclose(alpha[ddpm["labels"]], ddpm["sqrt_ac"], rtol=1e-5)
    np.testing.assert_allclose(sigma[ddpm["labels"]], ddpm["sqrt_1m_ac"], rtol=1e-4)  # theirs is 1 - 0.9999 in float32
    np.testing.assert_allclose(SMLDLevels().kernel()[1][smld["labels"]], smld["sigmas"], rtol=1e-6)


@pytest.mark.parametrize("name", list(LEVELS))
def test_labels_are_drawn_alike_and_belong_to_the_sample(name):
    levels = type(LEVELS[name])(n=25)
    seen = []

    def network(x, label):
        seen.append(label)
        return 0.0 * x + label[:, None]

    keys, x0 = jax.random.split(jax.random.key(0), 10_000), jnp.zeros((10_000, 2))
    together = discrete_denoising(keys, network, levels, x0)
    counts = np.bincount(np.asarray(seen[0]).astype(int), minlength=25)
    assert counts.sum() == 10_000
    assert np.sum((counts - 400) ** 2 / 400) < 51.2  # chi-squared of 24, one in a thousand
    np.testing.assert_allclose(discrete_denoising(keys[7:9], network, levels, x0[7:9]), together[7:9], rtol=1e-6)
