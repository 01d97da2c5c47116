"""alpha, sigma, drift and diffusion of every process against closed forms written down independently."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP, FromSchedule, RectifiedFlow, SubVP, VEExact, VPCosine


def linear_rate(t, low, high):
    return low * t + 0.5 * (high - low) * t**2


def cosine(t, s):
    """alpha^2 = cos^2(pi/2 (t + s)/(1 + s)) / cos^2(pi/2 s/(1 + s)), and 1 - alpha^2 by sum-to-product."""
    angle, start = 0.5 * np.pi * (t + s) / (1 + s), 0.5 * np.pi * s / (1 + s)
    variance = np.sin(angle - start) * np.sin(angle + start) / np.cos(start) ** 2
    return np.cos(angle) / np.cos(start), np.sqrt(variance)


def vp(low=0.1, high=20.0):
    return lambda t: (np.exp(-0.5 * linear_rate(t, low, high)), np.sqrt(-np.expm1(-linear_rate(t, low, high))))


def subvp(low=0.1, high=20.0):
    return lambda t: (np.exp(-0.5 * linear_rate(t, low, high)), -np.expm1(-linear_rate(t, low, high)))


def ve(low=0.01, high=50.0):
    return lambda t: (np.ones_like(t), np.exp((1 - t) * np.log(low) + t * np.log(high)))


def ve_exact(low=0.01, high=50.0):
    return lambda t: (np.ones_like(t), low * np.sqrt(np.expm1(2 * t * np.log(high / low))))


def schedule_vp(t):
    return linear_rate(t, 0.1, 20.0)


KERNELS = {
    "VP": (VP(), vp()),
    "VP beta_max 30": (VP(beta_max=30.0), vp(high=30.0)),
    "VP constant": (VP(beta_min=12.0, beta_max=12.0), vp(12.0, 12.0)),
    "VP from 0": (VP(beta_min=0.0), vp(low=0.0)),
    "SubVP": (SubVP(), subvp()),
    "SubVP beta 1 to 8": (SubVP(beta_min=1.0, beta_max=8.0), subvp(1.0, 8.0)),
    "VE": (VE(), ve()),
    "VE to 1348": (VE(sigma_max=1348.0), ve(high=1348.0)),
    "VE 0.02 to 100": (VE(sigma_min=0.02, sigma_max=100.0), ve(0.02, 100.0)),
    "VEExact": (VEExact(), ve_exact()),
    "VEExact to 1348": (VEExact(sigma_max=1348.0), ve_exact(high=1348.0)),
    "VEExact 0.1 to 1": (VEExact(sigma_min=0.1, sigma_max=1.0), ve_exact(0.1, 1.0)),
    "EDM": (EDM(), lambda t: (np.ones_like(t), t)),
    "EDM to 800": (EDM(t_max=800.0), lambda t: (np.ones_like(t), t)),
    "RectifiedFlow": (RectifiedFlow(), lambda t: (1.0 - t, t)),
    "VPCosine": (VPCosine(), lambda t: cosine(t, 0.008)),
    "VPCosine s 0.05": (VPCosine(s=0.05), lambda t: cosine(t, 0.05)),
    "FromSchedule": (
        FromSchedule(lambda t: jnp.exp(-0.5 * schedule_vp(t)), lambda t: jnp.sqrt(-jnp.expm1(-schedule_vp(t)))),
        vp(),
    ),
}
by_kernel = pytest.mark.parametrize("name", KERNELS)


def grid(sde, n=400):
    return np.concatenate([np.geomspace(1e-6, 0.1, n) * min(sde.t_max, 1.0), np.linspace(0.1, 1.0, n) * sde.t_max])


@by_kernel
def test_float32_on_the_whole_interval(name):
    sde, kernel = KERNELS[name]
    t = np.minimum(grid(sde).astype(np.float32), np.float32(sde.t_max))
    alpha, sigma = kernel(t.astype(np.float64))
    for vectors in (sde, jax.jit(lambda t: (sde.alpha(t), sde.sigma(t)))):
        ours = (vectors.alpha(t), vectors.sigma(t)) if vectors is sde else vectors(t)
        assert ours[0].dtype == ours[1].dtype == jnp.float32
        np.testing.assert_allclose(ours[0], alpha, rtol=2e-6)
        np.testing.assert_allclose(ours[1], sigma, rtol=2e-6)


@by_kernel
def test_float64(name):
    sde, kernel = KERNELS[name]
    with jax.enable_x64(True):
        t = jnp.asarray(grid(sde))
        np.testing.assert_allclose(sde.alpha(t), kernel(np.asarray(t))[0], rtol=1e-11)
        np.testing.assert_allclose(sde.sigma(t), kernel(np.asarray(t))[1], rtol=1e-11)
        log_snr = 2 * np.log(kernel(np.asarray(t))[0] / kernel(np.asarray(t))[1])
        np.testing.assert_allclose(sde.log_snr(t), log_snr, rtol=1e-11, atol=1e-10)


@by_kernel
def test_drift_and_diffusion_by_central_differences(name):
    """d log alpha/dt = f/x and d sigma^2/dt = 2 f/x sigma^2 + g^2, of the independent closed forms."""
    sde, kernel = KERNELS[name]
    t = np.linspace(0.02, 0.97, 60) * sde.t_max
    h = 1e-5 * sde.t_max
    (low, low_std), (high, high_std) = kernel(t - h), kernel(t + h)
    rate, growth = (np.log(high) - np.log(low)) / (2 * h), (high_std**2 - low_std**2) / (2 * h)
    with jax.enable_x64(True):
        x = jnp.asarray([[-1.5, 0.3]])
        drift = np.stack([np.asarray(sde.drift(x, time))[0] for time in jnp.asarray(t)])
        g = np.asarray(sde.diffusion(jnp.asarray(t)))
    np.testing.assert_allclose(drift, rate[:, None] * np.asarray([[-1.5, 0.3]]), rtol=1e-6, atol=1e-8)
    implied = growth - 2 * rate * kernel(t)[1] ** 2
    np.testing.assert_allclose(g**2, implied, rtol=1e-6, atol=1e-8 * np.abs(growth).max())


@pytest.mark.parametrize("reference", [VP(), VPCosine(), RectifiedFlow()], ids=["VP", "VPCosine", "RectifiedFlow"])
def test_from_schedule_reproduces_the_others(reference):
    """The process is recovered from its kernel alone."""
    sde = FromSchedule(reference.alpha, reference.sigma, t_min=reference.t_min, t_max=reference.t_max)
    with jax.enable_x64(True):
        t = jnp.linspace(0.01, 0.99, 21) * reference.t_max
        x = jax.random.normal(jax.random.key(0), (21, 3))
        np.testing.assert_allclose(sde.drift(x, t), reference.drift(x, t), rtol=1e-10)
        np.testing.assert_allclose(sde.diffusion(t), reference.diffusion(t), rtol=1e-9)
    if not isinstance(reference, VP):
        np.testing.assert_allclose(sde.prior_std(), reference.prior_std(), rtol=1e-6)


def test_the_two_kernels_of_ve():
    """How much noise the published kernel adds to the data that the SDE itself does not."""
    for t, ratio in ((1e-3, 7.69), (0.01, 2.53), (0.1, 1.106)):
        measured = float(VE().sigma(t) / VEExact().sigma(t))
        assert abs(measured / ratio - 1) < 2e-3
    t = jnp.linspace(0.0, 1.0, 9)
    np.testing.assert_allclose(VE().diffusion(t), VEExact().diffusion(t), rtol=1e-6)
    with jax.enable_x64(True):
        t = jnp.linspace(0.0, 1.0, 9)
        np.testing.assert_allclose(VE().sigma(t) ** 2 - VEExact().sigma(t) ** 2, np.full(9, 1e-4), rtol=1e-7)
