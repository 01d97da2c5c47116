"""`check_sde` passes what we ship and what a user writes, and names what is wrong with a broken process."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import EDM, VE, VP, AbstractAffineSDE, AbstractSDE, FromSchedule, RectifiedFlow, SubVP, VEExact, VPCosine
from sdelab._broadcast import expand_right
from sdelab.testing import Level, check_sde, report_sde

SHIPPED = [
    VP(),
    VP(beta_max=jnp.asarray(12.0)),
    VE(),
    VE(sigma_min=0.01, sigma_max=1348.0),
    VEExact(),
    SubVP(),
    EDM(),
    RectifiedFlow(),
    VPCosine(),
    FromSchedule(lambda t: jnp.exp(-3.0 * t), lambda t: jnp.sqrt(-jnp.expm1(-6.0 * t))),
]


class Ten(AbstractAffineSDE):
    """Ornstein–Uhlenbeck in ten lines, and the base of the broken ones: dx = -r x dt + sqrt(2 r) dw."""

    rate: float = 6.0
    t_min: float = eqx.field(default=1e-3, static=True)
    t_max: float = eqx.field(default=1.0, static=True)

    drift = lambda self, x, t: -self.rate * expand_right(jnp.ones_like(t * 1.0), x) * x  # noqa: E731
    diffusion = lambda self, t: jnp.sqrt(2.0 * self.rate) * jnp.ones_like(t * 1.0)  # noqa: E731
    alpha = lambda self, t: jnp.exp(-self.rate * t)  # noqa: E731
    sigma = lambda self, t: jnp.sqrt(-jnp.expm1(-2.0 * self.rate * t))  # noqa: E731
    prior_std = lambda self: 1.0  # noqa: E731


class DoubleWell(AbstractSDE):
    """No kernel: dx = -x^3 dt + sqrt(2) dw, with a Gaussian prior of its own."""

    t_min: float = eqx.field(default=1e-3, static=True)
    t_max: float = eqx.field(default=1.0, static=True)

    def drift(self, x, t):
        return -expand_right(jnp.ones_like(t * 1.0), x) * x**3

    def diffusion(self, t):
        return jnp.sqrt(2.0) * jnp.ones_like(t * 1.0)

    def prior_sample(self, key, shape, dtype=None):
        return jax.random.normal(key, shape, dtype if dtype is not None else jnp.result_type(float))

    def prior_log_prob(self, x):
        flat = x.reshape(x.shape[0], -1)
        return -0.5 * jnp.sum(flat**2 + jnp.log(2 * jnp.pi), axis=1)


def broken(base=Ten, **methods):
    """`base` with some methods replaced."""
    return type("Broken", (base,), {"__annotations__": {}, **methods})()


@pytest.mark.parametrize("sde", [*SHIPPED, Ten(), DoubleWell()], ids=lambda sde: type(sde).__name__)
def test_passes(sde):
    report = check_sde(sde)
    assert not report.failures
    assert "everything fits together" in str(report)


def test_the_three_kinds_of_noise_in_the_prior_are_figures_not_failures():
    """KL of N(0, alpha^2 s^2 + sigma^2) from the prior, by hand."""
    for sde in (RectifiedFlow(), VPCosine(), RectifiedFlow(t_max=0.9)):
        (note,) = [finding for finding in report_sde(sde, data_std=0.5).notes if finding.name.startswith("prior")]
        alpha, sigma, prior = float(sde.alpha(sde.t_max)), float(sde.sigma(sde.t_max)), float(sde.prior_std())
        ratio = (0.25 * alpha**2 + sigma**2) / prior**2
        assert note.level is Level.NOTE
        np.testing.assert_allclose(note.figure, 0.5 * (ratio - 1 - np.log(ratio)), rtol=1e-3, atol=1e-12)


def test_the_scale_of_the_data_matters():
    check_sde(EDM(), data_std=0.5)
    with pytest.raises(ValueError, match=r"prior: marginal at t_max: prior has std 80 against 128.* nats a dimension"):
        check_sde(EDM(), data_std=100.0)


def python_branch(self, t):
    return jnp.exp(-self.rate * t) if np.all(np.asarray(t) >= 0) else t


def other_prior(self, x):
    return -0.5 * jnp.sum((x / 2).reshape(x.shape[0], -1) ** 2 + jnp.log(8 * jnp.pi), axis=1)


def from_double(value):
    return np.float64(1.0) * np.asarray(value, np.float64)


BROKEN = {
    "sign of the drift": (
        lambda: broken(drift=lambda self, x, t: -Ten.drift(self, x, t)),
        r"kernel: alpha against drift: .* is -6 at t = .* but drift\(x, t\)/x is 6; the drift has the wrong sign",
    ),
    "drift by a factor": (
        lambda: broken(drift=lambda self, x, t: 2.0 * Ten.drift(self, x, t)),
        "kernel: alpha against drift: .*twice too large",
    ),
    "g squared": (
        lambda: broken(diffusion=lambda self, t: Ten.diffusion(self, t) ** 2),
        r"kernel: sigma against drift and diffusion: .*diffusion returns g\^2: take its square root",
    ),
    "g without sqrt 2": (
        lambda: broken(diffusion=lambda self, t: Ten.diffusion(self, t) / 2**0.5),
        r"kernel: sigma .*lacks a factor sqrt\(2\)",
    ),
    "sigma squared": (
        lambda: broken(sigma=lambda self, t: Ten.sigma(self, t) ** 2),
        "kernel: sigma .*sigma returns the variance: take its square root",
    ),
    "cancellation": (
        lambda: broken(sigma=lambda self, t: jnp.sqrt(1.0 - jnp.exp(-2.0 * self.rate * t))),
        r"precision: sigma: in float32 sigma\(.*expm1",
    ),
    "prior twice too wide": (
        lambda: broken(prior_std=lambda self: 2.0),
        "prior: marginal at t_max: prior has std 2 against 1 .*KL 3.2e-01",
    ),
    "prior density not normalised": (
        lambda: broken(prior_log_prob=lambda self, x: -0.5 * jnp.sum(x.reshape(x.shape[0], -1) ** 2, axis=1)),
        r"prior: normalisation: exp\(prior_log_prob\) integrates to 6\.2",
    ),
    "prior density of another width": (
        lambda: broken(prior_log_prob=other_prior),
        r"prior: samples: samples have std 1(\.0\d*)?, the density has (1.9|2)",
    ),
    "prior samples of another shape": (
        lambda: broken(DoubleWell, prior_sample=lambda self, key, shape, dtype=None: jax.random.normal(key, shape[:1])),
        r"prior: shape: prior_sample\(key, .*accepted",
    ),
    "prior samples of another dtype": (
        lambda: broken(
            DoubleWell, prior_sample=lambda self, key, shape, dtype=None: jax.random.normal(key, shape, jnp.float32)
        ),
        "dtype: float64: given float64, prior_sample is float32",
    ),
    "alpha increases": (
        lambda: broken(
            alpha=lambda self, t: jnp.exp(self.rate * t),
            drift=lambda self, x, t: -Ten.drift(self, x, t),
            sigma=lambda self, t: jnp.sqrt(-jnp.expm1(-2.0 * self.rate * t)),
        ),
        "log_snr: decreasing: increases by",
    ),
    "t does not broadcast": (
        lambda: broken(drift=lambda self, x, t: -self.rate * jnp.asarray(t) ** 0 * x),
        "time: drift: does not take one t per sample",
    ),
    "shape of diffusion": (
        lambda: broken(diffusion=lambda self, t: jnp.full((1,), 12.0**0.5)),
        r"time: diffusion: diffusion\(t\) has shape \(1,\) for a scalar t; accepted: \(\)",
    ),
    "drift not linear": (
        lambda: broken(drift=lambda self, x, t: Ten.drift(self, x, t) * jnp.cos(x)),
        r"linearity: drift: drift\(x, t\) is not a\(t\) x",
    ),
    "drift mixes the batch": (
        lambda: broken(drift=lambda self, x, t: Ten.drift(self, x - jnp.mean(x, axis=0, keepdims=True), t)),
        "batch: drift: given a larger batch it differs",
    ),
    "branches on t": (
        lambda: broken(alpha=python_branch),
        "pytree: jit: the process does not pass through jax.jit, TracerArrayConversionError",
    ),
    "hard-coded float64": (
        lambda: broken(diffusion=lambda self, t: from_double(12.0**0.5 * np.ones(np.shape(t)))),
        "dtype: float32: given float32, diffusion is float64",
    ),
    "hard-coded float32": (
        lambda: broken(sigma=lambda self, t: Ten.sigma(self, t).astype(jnp.float32)),
        "dtype: float64: given float64, sigma is float32",
    ),
    "a string for a field": (lambda: Ten(rate="6"), "pytree: leaves: the leaf '6' is no number: make its field static"),
    "negative g": (
        lambda: broken(diffusion=lambda self, t: -Ten.diffusion(self, t)),
        "positivity: diffusion: diffusion = -3.464",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.slow
def test_names_what_is_broken(name):
    build, words = BROKEN[name]
    with pytest.raises(ValueError, match=words) as error:
        check_sde(build())
    assert "checks failed" in str(error.value)


def test_arguments():
    with pytest.raises(ValueError, match=r"data_std = -1\.0"):
        check_sde(VP(), data_std=-1.0)
    with pytest.raises(ValueError, match=r"event_shape\[0\] = 0"):
        check_sde(VP(), event_shape=(0,))
