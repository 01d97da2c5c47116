"""Preconditioners: all predictions of one truth agree, to float32, on every process and up to both of its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VP, RectifiedFlow
from sdelab.score import (
    DataPrediction,
    EDMPreconditioner,
    NetworkScore,
    NoisePrediction,
    ScorePrediction,
    VelocityPrediction,
)
from tests.score.cases import SDES, times_of, truth


def edm_target(x0, x, alpha, sigma, data_std=0.5):
    """EDM's target as published, for the variable x/alpha with noise sigma/alpha."""
    y, s = x / alpha, sigma / alpha
    c_skip = data_std**2 / (s**2 + data_std**2)
    c_out = s * data_std / np.sqrt(s**2 + data_std**2)
    return (x0 - c_skip * y) / c_out


# what each network predicts, by definition, from (x0, eps, x, alpha, sigma)
TARGETS = {
    "noise": (NoisePrediction(), lambda x0, eps, x, a, s: eps),
    "data": (DataPrediction(), lambda x0, eps, x, a, s: x0),
    "velocity": (VelocityPrediction(), lambda x0, eps, x, a, s: a * eps - s * x0),
    "score": (ScorePrediction(), lambda x0, eps, x, a, s: -eps / s),
    "edm": (EDMPreconditioner(), lambda x0, eps, x, a, s: edm_target(x0, x, a, s)),
}


@pytest.fixture(params=list(SDES))
def sde(request):
    return SDES[request.param]


@pytest.mark.parametrize("name", list(TARGETS))
def test_every_prediction_gives_the_denoiser_the_noise_and_the_score(sde, name):
    preconditioner, target = TARGETS[name]
    t = times_of(sde).astype(np.float32)
    x0, eps, x, alpha, sigma = truth(sde, t)
    out = target(x0, eps, x, alpha, sigma)
    score = NetworkScore(sde, preconditioner, lambda out, *_, **__: out, jnp.asarray(out, jnp.float32))
    x32, t32 = jnp.asarray(x, jnp.float32), jnp.asarray(t)

    # Rounding alone: 3e-6 (the kernel's 2e-6, and the arithmetic) of the two terms that are added.
    with jax.enable_x64(True):
        a, s = jnp.asarray(alpha[:, 0]), jnp.asarray(sigma[:, 0])
        scale = {
            "denoise": np.abs(preconditioner.c_skip(a, s)[:, None] * x)
            + np.abs(preconditioner.c_out(a, s)[:, None] * out),
            "noise": np.abs(preconditioner.n_skip(a, s)[:, None] * x)
            + np.abs(preconditioner.n_out(a, s)[:, None] * out),
        }
    assert np.all(np.abs(score.denoise(x32, t32) - x0) <= 3e-6 * scale["denoise"])
    assert np.all(np.abs(score.noise(x32, t32) - eps) <= 3e-6 * scale["noise"])
    assert np.all(np.abs(score(x32, t32) + eps / sigma) <= 5e-6 * scale["noise"] / sigma)


def test_no_digits_are_lost_where_the_prediction_determines_the_answer(sde):
    """The noise by noise or score prediction and the data by data prediction, with a relative error, at every time."""
    t = times_of(sde).astype(np.float32)
    x0, eps, x, alpha, sigma = truth(sde, t)

    def score(name):
        preconditioner, target = TARGETS[name]
        out = jnp.asarray(target(x0, eps, x, alpha, sigma), jnp.float32)
        return NetworkScore(sde, preconditioner, lambda out, *_, **__: out, out)

    x32, t32 = jnp.asarray(x, jnp.float32), jnp.asarray(t)
    np.testing.assert_allclose(score("noise").noise(x32, t32), eps, rtol=3e-7)
    np.testing.assert_allclose(score("noise")(x32, t32), -eps / sigma, rtol=3e-6)
    np.testing.assert_allclose(score("score")(x32, t32), -eps / sigma, rtol=3e-6)
    np.testing.assert_allclose(score("data").denoise(x32, t32), x0, rtol=3e-7)
    # EDM's is good in both forms at once: absolute errors in units of the data and of the noise
    np.testing.assert_allclose(score("edm").denoise(x32, t32), x0, atol=5e-6)
    np.testing.assert_allclose(score("edm").noise(x32, t32), eps, atol=1e-5)


@pytest.mark.parametrize("name", list(TARGETS))
def test_the_network_sees_unit_variance_and_a_bounded_label(sde, name):
    preconditioner = type(TARGETS[name][0])(data_std=0.5)
    t = jnp.asarray(times_of(sde), jnp.float32)
    seen = {}

    def network(params, x, c_noise, condition, keys=None):
        seen.update(x=x, c_noise=c_noise)
        return x

    key_data, key_noise = jax.random.split(jax.random.key(0))
    x0 = 0.5 * jax.random.normal(key_data, (len(t), 20_000))
    xt, _ = sde.perturb(key_noise, x0, t)
    NetworkScore(sde, preconditioner, network, None).noise(xt, t)
    np.testing.assert_allclose(jnp.std(seen["x"], axis=1), 1.0, atol=0.03)  # six standard errors of a std
    assert np.all(np.abs(seen["c_noise"]) < 4.0)
    np.testing.assert_allclose(seen["c_noise"], -sde.log_snr(t) / 8, rtol=1e-4, atol=1e-5)


def test_edm_equals_the_published_preconditioner(load_fixture):
    published = load_fixture("B_nets/edm_EDMPrecond_SongUNet_ncsnpp")
    x, sigma = jnp.asarray(published["x"]), jnp.asarray(published["sigma"])
    seen = {}

    def network(params, x, c_noise, condition, keys=None):
        seen.update(x=x, c_noise=c_noise)
        return params

    score = NetworkScore(EDM(), EDMPreconditioner(0.5), network, jnp.asarray(published["F_x"]))
    np.testing.assert_allclose(score.denoise(x, sigma), published["D_x"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(seen["x"], published["net_in"], rtol=1e-6)
    np.testing.assert_allclose(seen["c_noise"], published["c_noise"], rtol=1e-6, atol=1e-7)


def test_edm_with_a_silent_network_is_exact_for_gaussian_data(sde):
    t = jnp.asarray(times_of(sde), jnp.float32)
    x = jax.random.normal(jax.random.key(0), (len(t), 4))
    score = NetworkScore(sde, EDMPreconditioner(data_std=0.7), lambda p, x, *_, **__: 0.0 * x, None)
    with jax.enable_x64(True):
        t64 = jnp.asarray(np.asarray(t), jnp.float64)
        alpha, sigma = np.asarray(sde.alpha(t64))[:, None], np.asarray(sde.sigma(t64))[:, None]
    variance = alpha**2 * 0.49 + sigma**2
    np.testing.assert_allclose(score(x, t), -np.asarray(x) / variance, rtol=1e-5)
    np.testing.assert_allclose(score.denoise(x, t), 0.49 * alpha * np.asarray(x) / variance, rtol=1e-5)


@pytest.mark.parametrize("name", ["noise", "velocity", "edm"])
def test_clean_data_is_its_own_denoised_state(name):
    """At t = 0, where log sigma is -inf, as a grid may end there."""
    x = jax.random.normal(jax.random.key(0), (2, 3))

    def network(params, x, c_noise, condition, keys=None):
        return jnp.cos(c_noise)[:, None] * x  # NaN for an infinite label

    for sde in (EDM(), VP(), RectifiedFlow()):
        np.testing.assert_array_equal(NetworkScore(sde, TARGETS[name][0], network, None).denoise(x, 0.0), x)


def test_the_velocity_is_that_of_the_process(sde):
    t = times_of(sde).astype(np.float32)
    x0, eps, x, alpha, sigma = truth(sde, t)
    v = jnp.asarray(alpha * eps - sigma * x0, jnp.float32)
    x32, t32 = jnp.asarray(x, jnp.float32), jnp.asarray(t)
    score = NetworkScore(sde, VelocityPrediction(), lambda v, *_, **__: v, v)
    np.testing.assert_allclose(score(x32, t32), sde.score_from_velocity(x32, v, t32), rtol=2e-5)


def test_a_scale_of_the_data_that_is_not_positive_is_refused():
    for preconditioner in (p for p, _ in TARGETS.values()):
        with pytest.raises(ValueError, match=r"data_std = 0\.0 is not accepted"):
            type(preconditioner)(data_std=0.0)
