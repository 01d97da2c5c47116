r"""Every objective on an exact mixture: no gradient at the exact score, and an excess that is the weighted error of the score.

With $s = s_{exact} + \theta h$ a loss is $L_0 + \theta L_1 + \theta^2 L_2$: $E L_1 = 0$, and $E L_2 = E\,\lambda \|h\|^2/d$, which
is computed by itself over evenly spaced quantiles of the time.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP, RectifiedFlow, SubVP
from sdelab._broadcast import expand_right
from sdelab.divergence import GaussianHutchinson, Hutchinson
from sdelab.exact import GaussianMixture
from sdelab.losses import (
    Antithetic,
    DataError,
    DDPMLevels,
    DiffusionSquared,
    EDMWeighting,
    ImportanceSampledTime,
    LogNormalNoise,
    MinSNR,
    NoiseOf,
    SigmaSquared,
    SigmoidSNR,
    SMLDLevels,
    SoftMinSNR,
    Stratified,
    UniformTime,
    denoising_score_matching,
    discrete_denoising,
    implicit_score_matching,
    sliced_score_matching,
)

N = 40_000
MIXTURE = GaussianMixture(jnp.asarray([[1.0, 0.5], [-0.8, -0.3], [0.2, -1.0]]), jnp.asarray([0.05, 0.2, 0.1]))


def perturbation(x, sigma):
    """A smooth error of the predicted noise, as one of the score."""
    return (jnp.sin(2.0 * x) + 0.5) / expand_right(sigma, x)


def perturbed(sde, theta):
    exact = MIXTURE.score(sde)
    return lambda x, t: exact(x, t) + theta * perturbation(x, sde.sigma(t))


def dsm(sde, weighting, times, **settings):
    """Case of denoising: the objective's own times are those that the excess is computed over."""
    own = settings.pop("own", times)
    settings |= {"weighting": weighting, "time_sampler": times}

    def losses(key, theta, x0):
        return denoising_score_matching(key, perturbed(sde, theta), sde, x0, **settings)

    return sde, weighting, own, losses


def implicit(sde, objective=implicit_score_matching, **settings):
    weighting, times = SigmaSquared(), UniformTime(0.02)
    settings |= {"weighting": weighting, "time_sampler": times}
    return sde, weighting, times, lambda key, theta, x0: objective(key, perturbed(sde, theta), sde, x0, **settings)


CASES = {
    "sigma squared": dsm(VP(), SigmaSquared(), UniformTime()),
    "g squared, importance-sampled": dsm(VP(), DiffusionSquared(), ImportanceSampledTime(VP()), own=UniformTime()),
    "g squared, sub-VP, coarse table": dsm(
        SubVP(), DiffusionSquared(), ImportanceSampledTime(SubVP(), 1e-3, steps=20), own=UniformTime(1e-3)
    ),
    "EDM": dsm(EDM(), EDMWeighting(), LogNormalNoise(), error=DataError()),
    "EDM under a rectified flow": dsm(RectifiedFlow(), EDMWeighting(), LogNormalNoise(), error=DataError()),
    "EDM's VP loss": dsm(EDM(t_max=160.0), SigmaSquared(), NoiseOf(VP(), UniformTime())),
    "min-SNR": dsm(VE(), MinSNR(), UniformTime()),
    "soft-min-SNR": dsm(VP(), SoftMinSNR(), UniformTime()),
    "sigmoid": dsm(VP(), SigmoidSNR(), ImportanceSampledTime(VP()), own=UniformTime()),
    "stratified": dsm(VP(), SigmaSquared(), Stratified(UniformTime(), N), own=UniformTime()),
    "antithetic": dsm(VP(), SigmaSquared(), Antithetic(UniformTime()), own=UniformTime()),
    "implicit": implicit(VP()),
    "implicit, Hutchinson": implicit(VE(), divergence=Hutchinson(2)),
    "sliced": implicit(VP(), sliced_score_matching),
    "sliced, Gaussian": implicit(SubVP(), sliced_score_matching, directions=GaussianHutchinson()),
}


def terms(losses, key, x0):
    """$L_1$ and $L_2$ of every sample, in float64."""
    values = jax.jit(jax.vmap(lambda theta: losses(key, theta, x0)))(jnp.asarray([-1.0, 0.0, 1.0]))
    down, middle, up = np.asarray(values, np.float64)
    return (up - down) / 2, (up + down) / 2 - middle


def agree(values, others, width=4.0):
    spread = np.sqrt(np.var(values) / len(values) + np.var(others) / max(len(np.atleast_1d(others)), 1))
    return abs(np.mean(values) - np.mean(others)) < width * spread


@pytest.mark.parametrize("name", list(CASES))
def test_no_gradient_at_the_exact_score_and_the_excess_is_the_weighted_error(name):
    sde, weighting, own, losses = CASES[name]
    key_data, key_loss, key_again = jax.random.split(jax.random.key(5), 3)
    x0 = MIXTURE.sample(key_data, N)
    slope, curvature = terms(losses, key_loss, x0)
    assert agree(slope, np.zeros(1))

    @eqx.filter_jit
    def weighted_error(x0, uniform):
        t, _ = own.quantile(uniform, sde)
        xt, _ = sde.perturb(key_again, x0, t)
        return jnp.mean(perturbation(xt, sde.sigma(t)) ** 2, axis=1) * weighting(sde, t)

    expected = np.asarray(weighted_error(x0, jnp.asarray((np.arange(N) + 0.5) / N, jnp.float32)), np.float64)
    assert agree(curvature, expected, width=5.0)
    assert curvature.std() / np.sqrt(N) < 0.1 * expected.mean()  # so that agreeing says something


DISCRETE = {"ddpm": (DDPMLevels(), VP(t_max=1.1)), "smld": (SMLDLevels(), VE())}


@pytest.mark.parametrize("name", list(DISCRETE))
def test_the_discrete_losses_too(name):
    levels, sde = DISCRETE[name]
    alpha, sigma = levels.kernel()
    with jax.enable_x64(True):
        times = sde.log_snr_inverse(jnp.asarray(2.0 * (np.log(alpha) - np.log(sigma))))
    table = jnp.asarray(
        np.asarray(times), jnp.float32
    )  # where the process has the kernel of each label; DDPM's end a bit later
    exact = MIXTURE.score(sde)

    def losses(key, theta, x0):
        def network(x, label):
            t = table[label.astype(jnp.int32)]
            error = theta * (jnp.sin(2.0 * x) + 0.5)
            noise = exact.noise(x, t) + error
            return noise if name == "ddpm" else -noise / expand_right(sde.sigma(t), x)

        return discrete_denoising(key, network, levels, x0)

    slope, curvature = terms(losses, jax.random.key(1), MIXTURE.sample(jax.random.key(0), N))
    assert agree(slope, np.zeros(1))
    assert 0.5 < curvature.mean() < 1.0  # of (sin + 1/2)^2: between 1/4 + 1/2 and what few fringes leave of it


def test_implicit_and_denoising_losses_differ_by_a_constant_that_no_score_changes():
    r"""$E\,\lambda\|\nabla\log p(x_t \mid x_0)\|^2/d = 1$ for $\lambda = \sigma^2$, whatever the score."""
    x0 = MIXTURE.sample(jax.random.key(0), N)
    settings = {"weighting": SigmaSquared(), "time_sampler": UniformTime(0.02)}
    for theta in (0.0, 0.7):
        score = perturbed(VP(), theta)
        values = [
            np.asarray(jax.jit(lambda x0, o=o, score=score: o(jax.random.key(1), score, VP(), x0, **settings))(x0))
            for o in (denoising_score_matching, implicit_score_matching)
        ]
        assert agree(values[0] - 1.0, values[1])


@pytest.mark.parametrize("objective", [implicit_score_matching, sliced_score_matching])
def test_the_divergence_is_differentiated_by_the_parameters(objective):
    """The loss is a parabola in theta: its derivative is a central difference, whatever the width."""
    x0 = MIXTURE.sample(jax.random.key(0), 64)
    settings = {"weighting": SigmaSquared(), "time_sampler": UniformTime(0.1)}

    @jax.jit
    def loss(theta):
        return jnp.mean(objective(jax.random.key(1), perturbed(VP(), theta), VP(), x0, **settings))

    difference = (loss(jnp.asarray(1.5)) - loss(jnp.asarray(-0.5))) / 2.0
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.asarray(0.5)), difference, rtol=1e-4, atol=1e-4)
