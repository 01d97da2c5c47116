"""Checks of a process with a kernel. They run in float64, but for the one of float32."""

import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from sdelab.sde import AbstractAffineSDE
from sdelab.testing.process import Case, at_each
from sdelab.testing.report import Finding, Level, bounded

KERNEL = 1e-6
"""Two formulas for one rate agree to this in float64, relative to the terms they are summed of."""

SINGLE = 2e-6
"""Relative error of `alpha` and `sigma` in float32: about sixteen roundings."""

PRIOR = 1e-2
"""Nats a dimension between marginal and prior at t_max above which it is an error, not an approximation."""


def kernel(case: Case) -> list[Finding]:
    r"""$d\log\alpha/dt = f/x$ and $d\sigma^2/dt = 2 (f/x) \sigma^2 + g^2$."""
    sde, grid = affine(case), case.grid()
    one = jnp.ones((1, *case.event_shape))
    rate = at_each(lambda t: jnp.ravel(sde.drift(one, t))[0], grid)
    alpha, alpha_rate = _with_rate(sde.alpha, grid)
    sigma, sigma_rate = _with_rate(sde.sigma, grid)
    g = at_each(sde.diffusion, grid)
    return [_alpha_finding(grid, alpha_rate / alpha, rate), _sigma_finding(grid, sigma, sigma_rate, rate, g)]


def _alpha_finding(grid: np.ndarray, slope: np.ndarray, rate: np.ndarray) -> Finding:
    errors = np.abs(slope - rate) / (np.abs(slope) + np.abs(rate) + 1e-6 / grid[-1])
    worst = _argworst(errors)
    broken = (
        f"d log alpha/dt is {slope[worst]:.4g} at t = {grid[worst]:.4g}, but drift(x, t)/x is {rate[worst]:.4g}"
        + _hint({"the drift has the wrong sign": -rate, "the drift is twice too large": rate / 2,
                 "the drift is twice too small": 2 * rate}, slope)
    )  # fmt: skip
    fine = "d log alpha/dt = drift/x"
    return bounded("kernel: alpha against drift", errors[worst], KERNEL, fine=fine, broken=broken)


def _sigma_finding(
    grid: np.ndarray, sigma: np.ndarray, sigma_rate: np.ndarray, rate: np.ndarray, g: np.ndarray
) -> Finding:
    growth, pull = 2 * sigma * sigma_rate, 2 * rate * sigma**2
    errors = np.abs(growth - pull - g**2) / (np.abs(growth) + np.abs(pull) + g**2)
    worst = _argworst(errors)
    implied = growth - pull
    broken = (
        f"d sigma^2/dt is {growth[worst]:.4g} at t = {grid[worst]:.4g}, but 2 (drift/x) sigma^2 + diffusion^2 is "
        f"{pull[worst] + g[worst] ** 2:.4g}"
        + _hint({"diffusion returns g^2: take its square root": g, "diffusion lacks a factor sqrt(2)": 2 * g**2,
                 "diffusion has a factor sqrt(2) too many": g**2 / 2}, implied)
        + _hint({"sigma returns the variance: take its square root": 2 * rate * sigma + g**2}, sigma_rate)
    )  # fmt: skip
    fine = "d sigma^2/dt = 2 (drift/x) sigma^2 + diffusion^2"
    return bounded("kernel: sigma against drift and diffusion", errors[worst], KERNEL, fine=fine, broken=broken)


def _hint(guesses: dict[str, np.ndarray], truth: np.ndarray) -> str:
    """The first guess that explains the figures at every time."""
    for words, guess in guesses.items():
        if np.any(truth != 0) and np.allclose(guess, truth, rtol=1e-6, atol=0.0):
            return f"; {words}"
    return ""


def linearity(case: Case) -> list[Finding]:
    """The drift is one number times x, the same for every coordinate."""
    sde, x = affine(case), case.states(4)
    errors = []
    for t in (0.01 * sde.t_max, 0.3 * sde.t_max, 0.9 * sde.t_max):
        rate = jnp.ravel(sde.drift(jnp.ones_like(x), jnp.asarray(t)))[0]
        drift = sde.drift(3.0 * x, jnp.asarray(t))
        if drift.shape != x.shape:
            return [bounded("linearity: drift", math.inf, 1e-10, fine="",
                            broken=f"drift has shape {drift.shape} for x of shape {x.shape}")]  # fmt: skip
        scale = float(jnp.max(jnp.abs(drift)))
        errors.append(float(jnp.max(jnp.abs(drift - 3.0 * rate * x))) / (scale if scale > 0 else 1.0))
    broken = "drift(x, t) is not a(t) x: a kernel N(alpha x0, sigma^2 I) needs a drift linear in x"
    return [bounded("linearity: drift", max(errors), 1e-10, fine="drift(x, t) = a(t) x", broken=broken)]


def log_snr(case: Case) -> list[Finding]:
    """The log-SNR decreases, and is inverted by `log_snr_inverse`."""
    sde, grid = affine(case), case.grid()
    values = at_each(sde.log_snr, grid)
    steps = np.diff(values)
    worst = _argworst(steps)
    broken = f"increases by {steps[worst]:.4g} between t = {grid[worst]:.4g} and {grid[worst + 1]:.4g}"
    decreasing = bounded("log_snr: decreasing", float(steps[worst] >= 0), 0.5, fine="decreases", broken=broken)
    if decreasing.level is Level.FAILURE or not np.all(np.isfinite(values)):
        return [decreasing]
    chosen = grid[:: len(grid) // 6]
    found = np.asarray(sde.log_snr_inverse(jnp.asarray(values[:: len(grid) // 6])))
    errors = np.abs(found / chosen - 1.0)
    worst = _argworst(errors)
    broken = f"log_snr_inverse(log_snr(t)) is {found[worst]:.6g} at t = {chosen[worst]:.6g}"
    return [decreasing, bounded("log_snr: inverse", errors[worst], 1e-6, fine="gives t back", broken=broken)]


def prior_at_the_end(case: Case) -> list[Finding]:
    r"""The marginal at t_max of data $N(0, s^2)$ against the prior, and how much the kernel still tells of the data.

    With $m^2 = \alpha^2 s^2 + \sigma^2$ and the prior's $p$: $KL = \tfrac12 (m^2/p^2 - 1 - \log(m^2/p^2))$ a dimension, and
    for any data of that scale at most $\tfrac12 (m^2/p^2 - 1 - \log(\sigma^2/p^2))$, by convexity.
    """
    sde = affine(case)
    end = jnp.asarray(sde.t_max)
    alpha, sigma, p = float(sde.alpha(end)), float(sde.sigma(end)), float(sde.prior_std())
    m = math.hypot(alpha * case.data_std, sigma)
    ratio = (m / p) ** 2
    kl = 0.5 * (ratio - 1.0 - math.log(ratio))
    bound = 0.5 * (ratio - 1.0 - 2.0 * math.log(sigma / p))
    words = (
        f"std {p:.4g} against {m:.4g} of the marginal at t_max for data of std {case.data_std:.4g}, where alpha = "
        f"{alpha:.2g}: KL {kl:.1e} nats a dimension for Gaussian data, at most {bound:.1e} for any"
    )
    if kl <= PRIOR and bound > 1e-8:
        return [Finding("prior: marginal at t_max", Level.NOTE, kl, PRIOR, words)]
    return [bounded("prior: marginal at t_max", kl, PRIOR, fine=words, broken=f"prior has {words}")]


def single_precision(case: Case) -> list[Finding]:
    """`alpha` and `sigma` in float32 against float64 at the same times."""
    start = min(case.sde.t_min if case.sde.t_min > 0 else math.inf, 1e-5 * case.sde.t_max)
    end = case.sde.t_max
    grid = np.concatenate([np.geomspace(start, end, 400), np.linspace(0.01 * end, end, 400)])
    grid = np.clip(grid, 0.0, end).astype(np.float32)
    findings = []
    sde, double = cast(AbstractAffineSDE, case.sde), affine(case)
    for name, in_single, in_double in (("alpha", sde.alpha, double.alpha), ("sigma", sde.sigma, double.sigma)):
        with jax.enable_x64(False):
            single = np.asarray(jax.vmap(in_single)(jnp.asarray(grid)), np.float64)
        truth = np.asarray(jax.vmap(in_double)(jnp.asarray(grid.astype(np.float64))))
        errors = np.abs(single - truth) / np.abs(truth)
        worst = _argworst(errors)
        broken = (
            f"in float32 {name}({grid[worst]:.3g}) is {single[worst]:.7g}, in float64 {truth[worst]:.7g}: digits cancel; "
            "expm1, log1p and factored differences keep them"
        )
        fine = f"good to {errors[worst]:.1e} in float32 from t = {start:.2g} on"
        findings.append(bounded(f"precision: {name}", errors[worst], SINGLE, fine=fine, broken=broken))
    return findings


def affine(case: Case) -> AbstractAffineSDE:
    """The process in float64; these checks are made of processes with a kernel only."""
    return cast(AbstractAffineSDE, case.double())


def _with_rate(function: Callable[[Any], Any], grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = [jax.jvp(function, (jnp.asarray(t),), (jnp.ones(()),)) for t in grid]
    values, rates = zip(*pairs, strict=True)
    return np.asarray(values), np.asarray(rates)


def _argworst(errors: np.ndarray) -> int:
    """Where the error is largest; NaN is the largest of all."""
    return int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
