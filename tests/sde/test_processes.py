"""What every process can do: invert its log-SNR, be transformed, be perturbed with, refuse bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP, FromSchedule, RectifiedFlow, SubVP, VEExact, VPCosine

SDES = [
    VP(),
    SubVP(),
    VE(),
    VEExact(),
    EDM(),
    RectifiedFlow(),
    VPCosine(),
    FromSchedule(lambda t: jnp.exp(-3.0 * t), lambda t: jnp.sqrt(-jnp.expm1(-6.0 * t))),
]
by_sde = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)


def vp_time(log_snr, low=0.1, high=20.0):
    """B = log(1 + e^-log_snr), then the quadratic B = low t + (high - low) t^2/2."""
    total = np.logaddexp(0.0, -log_snr)
    return 2 * total / (low + np.sqrt(low**2 + 2 * (high - low) * total))


CLOSED = {
    "VP": (VP(), vp_time),
    "EDM": (EDM(), lambda log_snr: np.exp(-0.5 * log_snr)),
    "VE": (VE(), lambda log_snr: (-0.5 * log_snr - np.log(0.01)) / np.log(5000.0)),
    "RectifiedFlow": (RectifiedFlow(), lambda log_snr: 1 / (1 + np.exp(0.5 * log_snr))),
}


@pytest.mark.parametrize("name", CLOSED)
def test_log_snr_inverse(name):
    sde, time = CLOSED[name]
    values = np.linspace(-7.0, 7.0, 15)
    with jax.enable_x64(True):
        np.testing.assert_allclose(sde.log_snr_inverse(jnp.asarray(values)), time(values), rtol=1e-12)
        slopes = jax.vmap(jax.grad(sde.log_snr_inverse))(jnp.asarray(values))
        h = 1e-5
        np.testing.assert_allclose(slopes, (time(values + h) - time(values - h)) / (2 * h), rtol=1e-7)
    single = sde.log_snr_inverse(jnp.asarray(values, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, time(values), rtol=1e-5)


def test_the_gradient_of_log_snr_inverse_by_a_field():
    with jax.enable_x64(True):
        for value in (-5.0, 0.0, 5.0):
            slope = jax.grad(lambda high, value=value: VP(beta_max=high).log_snr_inverse(value))(20.0)
            numeric = (vp_time(value, high=20.0 + 1e-5) - vp_time(value, high=20.0 - 1e-5)) / 2e-5
            np.testing.assert_allclose(slope, numeric, rtol=1e-7)


@by_sde
def test_log_snr_inverse_gives_t_back(sde):
    with jax.enable_x64(True):
        t = jnp.geomspace(1e-6, 1.0, 30) * sde.t_max
        np.testing.assert_allclose(sde.log_snr_inverse(sde.log_snr(t)), t, rtol=1e-9, atol=1e-14)


def quantities(sde, x, t):
    return sde.drift(x, t), sde.diffusion(t), sde.alpha(t), sde.sigma(t), sde.log_snr(t), sde.prior_log_prob(x)


@by_sde
def test_transformations(sde):
    """Flattened and back, and under `jit` as an argument, it is the same process."""
    x, t = jax.random.normal(jax.random.key(0), (3, 4)), jnp.asarray([0.1, 0.5, 0.9]) * sde.t_max
    leaves, structure = jax.tree.flatten(sde)
    expected = quantities(sde, x, t)
    for again in (quantities(jax.tree.unflatten(structure, leaves), x, t), jax.jit(quantities)(sde, x, t)):
        for ours, truth in zip(again, expected, strict=True):
            np.testing.assert_allclose(ours, truth, rtol=2e-6, atol=1e-6)
    for one in range(3):
        alone = quantities(sde, x[one : one + 1], float(t[one]))
        for ours, truth in zip(alone, expected, strict=True):
            np.testing.assert_allclose(np.ravel(ours), np.ravel(truth[one]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "field", "at"),
    [
        (VP, "beta_max", 20.0),
        (VP, "beta_min", 0.1),
        (SubVP, "beta_max", 20.0),
        (VE, "sigma_max", 50.0),
        (VE, "sigma_min", 0.01),
        (VEExact, "sigma_max", 50.0),
        (VPCosine, "s", 0.008),
    ],
)
def test_fields_are_differentiated_and_mapped_over(build, field, at):
    with jax.enable_x64(True):
        t, x = 0.4, jnp.asarray([[1.0, -2.0]])

        def objective(value):
            sde = build(**{field: value})
            return jnp.sum(sde.drift(x, t)) + sde.diffusion(t) + sde.sigma(t) + sde.alpha(t) + sde.prior_log_prob(x)[0]

        h = 1e-5 * at
        numeric = (objective(at + h) - objective(at - h)) / (2 * h)
        np.testing.assert_allclose(jax.grad(objective)(at), numeric, rtol=1e-6)
        values = at * jnp.asarray([0.5, 1.0, 1.5])
        one_by_one = [objective(float(value)) for value in values]
        np.testing.assert_allclose(jax.vmap(objective)(values), one_by_one, rtol=1e-12)
        sdes = jax.vmap(lambda value: build(**{field: value}))(values)
        mapped = jax.vmap(lambda sde: sde.sigma(t))(sdes)
        np.testing.assert_allclose(mapped, [build(**{field: float(v)}).sigma(t) for v in values], rtol=1e-12)


@by_sde
def test_perturb(sde):
    """Mean and covariance of x_t, within five standard errors, and x_t is made of the noise that is returned."""
    n, t = 100_000, 0.4 * sde.t_max
    x0 = jnp.broadcast_to(jnp.asarray([[2.0, -1.0]]), (n, 2))
    xt, eps = sde.perturb(jax.random.key(0), x0, t)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    np.testing.assert_allclose(xt, alpha * x0 + sigma * eps, rtol=1e-5, atol=1e-5 * sigma)
    np.testing.assert_array_less(np.abs(np.mean(xt, axis=0) - alpha * np.asarray([2.0, -1.0])), 5 * sigma / n**0.5)
    covariance = np.cov(np.asarray(xt, np.float64).T) / sigma**2
    np.testing.assert_array_less(np.abs(covariance - np.eye(2)), 5 * (2 / n) ** 0.5)


@by_sde
def test_the_prior(sde):
    """Samples of the std that the density has, and the density of a Gaussian."""
    n = 100_000
    z = np.asarray(sde.prior_sample(jax.random.key(0), (n, 2)), np.float64)
    std = float(sde.prior_std())
    assert abs(z.std() / std - 1) < 5 / (4 * n) ** 0.5
    truth = -0.5 * np.sum((z[:5] / std) ** 2 + np.log(2 * np.pi * std**2), axis=1)
    np.testing.assert_allclose(sde.prior_log_prob(jnp.asarray(z[:5], jnp.float32)), truth, rtol=2e-6)


@by_sde
def test_scores_from_other_predictions(sde):
    """Noise, denoised data and velocity of one and the same (x0, eps) give one score, -eps/sigma."""
    t = jnp.asarray([0.1, 0.5, 0.9]) * sde.t_max
    x0 = jax.random.normal(jax.random.key(0), (3, 4))
    xt, eps = sde.perturb(jax.random.key(1), x0, t)
    alpha, sigma = np.asarray(sde.alpha(t))[:, None], np.asarray(sde.sigma(t))[:, None]
    score = -np.asarray(eps) / sigma
    velocity = jnp.asarray(alpha * np.asarray(eps) - sigma * np.asarray(x0))
    tolerance = dict(rtol=1e-4, atol=1e-5 * np.abs(score).max())
    np.testing.assert_allclose(sde.score_from_noise(eps, t), score, **tolerance)
    np.testing.assert_allclose(sde.score_from_denoised(xt, x0, t), score, **tolerance)
    np.testing.assert_allclose(sde.score_from_velocity(xt, velocity, t), score, **tolerance)
    np.testing.assert_allclose(sde.noise_from_score(jnp.asarray(score), t), eps, rtol=1e-5, atol=1e-6)
    extent = np.abs(np.asarray(xt)).max() / alpha.min()
    np.testing.assert_allclose(sde.denoise(xt, t, jnp.asarray(score)), x0, rtol=1e-4, atol=1e-6 * extent)


def test_dtypes():
    with jax.enable_x64(True):
        for sde in SDES[:-1]:
            for dtype in (jnp.float32, jnp.float64):
                x, t = jnp.ones((2, 3), dtype), jnp.full((2,), 0.3, dtype)
                assert {value.dtype for value in quantities(sde, x, t)} == {jnp.dtype(dtype)}
                assert sde.perturb(jax.random.key(0), x, t)[0].dtype == dtype
