"""Checks that hold for every forward process. They run in float64."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sdelab.sde import AbstractAffineSDE, AbstractSDE
from sdelab.testing.report import Finding, bounded, failure, passed

PRIOR_DRAWS = 1 << 16
"""Enough for 0.4 % on a standard deviation and on an integral."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A process with what is known of the data it is meant for."""

    sde: AbstractSDE
    data_std: float
    event_shape: tuple[int, ...]

    def double(self) -> AbstractSDE:
        """The process with its float32 arrays in float64, the same numbers."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) if _is_floating(leaf) else leaf, self.sde)

    def grid(self, n: int = 12) -> np.ndarray:
        """Times in (0, t_max), as many near 0 in the logarithm as over the interval."""
        end = self.sde.t_max
        return np.unique(np.concatenate([np.geomspace(1e-5, 0.1, n) * end, np.linspace(0.1, 0.995, n) * end]))

    def states(self, batch: int = 3) -> Array:
        key = jax.random.key(0)
        return self.data_std * jax.random.normal(key, (batch, *self.event_shape), jnp.result_type(float))


def at_each(function: Callable[[Any], Any], times: np.ndarray) -> np.ndarray:
    """One scalar time after another: a process that takes scalars only can be judged too."""
    return np.stack([np.asarray(function(jnp.asarray(t))) for t in times])


def functions_of_time(sde: AbstractSDE) -> dict[str, Callable[[Any], Any]]:
    functions: dict[str, Callable[[Any], Any]] = {"diffusion": sde.diffusion}
    if isinstance(sde, AbstractAffineSDE):
        functions |= {"alpha": sde.alpha, "sigma": sde.sigma}
    return functions


def times(case: Case) -> list[Finding]:
    """A scalar t, and one t per sample, give the same; a sample is not changed by the others."""
    sde, x = case.double(), case.states()
    t = jnp.asarray([0.1, 0.5, 0.9]) * sde.t_max
    findings = []
    for name, function in functions_of_time(sde).items():
        findings.append(_scalar_and_vector(name, function, t))
    one_by_one = [sde.drift(x[i : i + 1], t[i]) for i in range(3)]
    findings.append(_same("time: drift", lambda: sde.drift(x, t), jnp.concatenate(one_by_one), "one t per sample"))
    findings.append(_same("batch: drift", lambda: sde.drift(x, t[1])[:1], sde.drift(x[:1], t[1]), "a larger batch"))
    return findings


def _scalar_and_vector(name: str, function: Callable[[Any], Any], t: Array) -> Finding:
    scalars = [jnp.asarray(function(time)) for time in t]
    if any(value.shape != () for value in scalars):
        return failure(f"time: {name}", f"{name}(t) has shape {scalars[0].shape} for a scalar t; accepted: ().")
    return _same(f"time: {name}", lambda: function(t), jnp.stack(scalars), "t of shape (batch,)")


def _same(name: str, function: Callable[[], Any], expected: Array, given: str) -> Finding:
    try:
        value = jnp.asarray(function())
    except Exception as error:
        return failure(name, f"does not take {given}, {type(error).__name__}: {str(error).strip().splitlines()[0]}")
    if value.shape != expected.shape:
        return failure(name, f"given {given} the shape is {value.shape}; accepted: {expected.shape}.")
    error = relative(value, expected)
    return bounded(name, error, 1e-6, fine=f"takes {given}", broken=f"given {given} it differs from sample by sample")


def dtypes(case: Case) -> list[Finding]:
    """float32 in, float32 out, where float64 is enabled too; and float64 in, float64 out."""
    findings = []
    for dtype in (jnp.float32, jnp.float64):
        sde = case.sde if dtype == jnp.float32 else case.double()
        x, t = case.states().astype(dtype), jnp.full((3,), 0.5 * sde.t_max, dtype)
        results = {name: function(t) for name, function in functions_of_time(sde).items()}
        results |= {"drift": sde.drift(x, t), "prior_log_prob": sde.prior_log_prob(x)}
        results["prior_sample"] = sde.prior_sample(jax.random.key(0), x.shape, jnp.dtype(dtype))
        wrong = {name: value.dtype for name, value in results.items() if jnp.asarray(value).dtype != dtype}
        title, given = f"dtype: {jnp.dtype(dtype).name}", jnp.dtype(dtype).name
        words = ", ".join(f"{name} is {found}" for name, found in wrong.items())
        findings.append(failure(title, f"given {given}, {words}") if wrong else passed(title, "is kept"))
    return findings


def positivity(case: Case) -> list[Finding]:
    """g >= 0, alpha > 0 and sigma > 0, all finite, on (0, t_max]."""
    sde, grid = case.double(), np.append(case.grid(), case.sde.t_max)
    findings = []
    for name, function in functions_of_time(sde).items():
        values = at_each(function, grid)
        good = np.isfinite(values) & (values >= 0 if name == "diffusion" else values > 0)
        if np.all(good):
            findings.append(passed(f"positivity: {name}", "is finite and not negative on (0, t_max]"))
        else:
            worst = np.argmin(good)
            findings.append(failure(f"positivity: {name}", f"{name} = {values[worst]:.4g} at t = {grid[worst]:.4g}"))
    drift = sde.drift(case.states(), jnp.asarray(sde.t_max))
    if not np.all(np.isfinite(drift)):
        findings.append(failure("positivity: drift", f"is not finite at t_max = {sde.t_max}"))
    return findings


def prior(case: Case) -> list[Finding]:
    """The prior's density integrates to one and is the density of its samples."""
    sde, shape = case.double(), (PRIOR_DRAWS, *case.event_shape)
    x = jnp.asarray(sde.prior_sample(jax.random.key(1), shape))
    if x.shape != shape:
        return [failure("prior: shape", f"prior_sample(key, {shape}) has shape {x.shape}; accepted: {shape}.")]
    log_prob = jnp.asarray(sde.prior_log_prob(x))
    if log_prob.shape != shape[:1]:
        return [failure("prior: shape", f"prior_log_prob has shape {log_prob.shape} for x of shape {shape}.")]
    mean, std = jnp.mean(x, axis=0, keepdims=True), float(jnp.std(x))
    z = jax.random.normal(jax.random.key(2), shape)
    y, wide = mean + 1.25 * std * z, 1.25 * std  # importance weights of a wider Gaussian are bounded
    size = math.prod(case.event_shape)
    log_proposal = -0.5 * jnp.sum(z.reshape(PRIOR_DRAWS, -1) ** 2, 1) - size * math.log(wide * math.sqrt(2 * math.pi))
    weights = np.exp(np.asarray(sde.prior_log_prob(y) - log_proposal))
    total = float(np.mean(weights))
    squares = np.mean(np.asarray((y - mean) / std).reshape(PRIOR_DRAWS, -1) ** 2, axis=1)
    ratio = math.sqrt(float(np.mean(weights * squares)) / total) if total > 0 else math.nan
    findings = [
        bounded("prior: normalisation", abs(total - 1.0), 0.03, fine="the density integrates to 1",
                broken=f"exp(prior_log_prob) integrates to {total:.4g}, not 1"),
        bounded("prior: samples", abs(ratio - 1.0), 0.03, fine=f"samples and density have std {std:.4g}",
                broken=f"samples have std {std:.4g}, the density has {std * ratio:.4g}"),
    ]  # fmt: skip
    if isinstance(sde, AbstractAffineSDE):
        claimed = float(sde.prior_std())
        findings.append(bounded("prior: prior_std", abs(std / claimed - 1.0), 0.03, fine=f"is {claimed:.4g}",
                                broken=f"samples have std {std:.4g}, prior_std() is {claimed:.4g}"))  # fmt: skip
    return findings


def pytree(case: Case) -> list[Finding]:
    """Flattening, and `jit`, `vmap` and `grad` with the process as an argument."""
    sde, x, t = case.double(), case.states(), jnp.full((3,), 0.4 * case.sde.t_max)
    leaves, structure = jax.tree.flatten(sde)
    strange = [leaf for leaf in leaves if not _is_number(leaf)]
    if strange:
        words = f"the leaf {strange[0]!r} is no number: make its field static (equinox.field(static=True))"
        return [failure("pytree: leaves", words)]

    def evaluate(sde: AbstractSDE, t: Array = t) -> dict[str, Array]:
        return {name: jnp.asarray(f(t)) for name, f in functions_of_time(sde).items()} | {"drift": sde.drift(x, t)}

    expected = evaluate(sde)
    findings = [
        _transformed("flatten", lambda: evaluate(jax.tree.unflatten(structure, leaves)), expected),
        _transformed("jit", lambda: jax.jit(evaluate)(sde, t), expected),
    ]
    if not any(map(_is_floating, leaves)):
        return findings
    doubled = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), sde)
    mapped = jax.vmap(evaluate, in_axes=(0, None))
    findings.append(_transformed("vmap", lambda: {k: v[1] for k, v in mapped(doubled, t).items()}, expected))
    floating = [leaf if _is_floating(leaf) else None for leaf in leaves]
    findings.append(_differentiated(evaluate, leaves, structure, floating))
    return findings


def _transformed(name: str, function: Callable[[], dict[str, Array]], expected: dict[str, Array]) -> Finding:
    try:
        values = function()
    except Exception as error:
        words = f"the process does not pass through jax.{name}, {type(error).__name__}"
        return failure(f"pytree: {name}", f"{words}: {str(error).strip().splitlines()[0]}")
    errors = {key: relative(values[key], expected[key]) for key in expected}
    worst = max(errors, key=lambda key: errors[key])
    broken = f"{worst} changes under {name}"
    return bounded(f"pytree: {name}", errors[worst], 1e-6, fine="works", broken=broken)


def _differentiated(evaluate: Callable[..., Any], leaves: list, structure: Any, floating: list) -> Finding:
    def objective(floating: list) -> Array:
        merged = [old if new is None else new for old, new in zip(leaves, floating, strict=True)]
        values = evaluate(jax.tree.unflatten(structure, merged)).values()
        return jnp.sum(jnp.stack([jnp.sum(value) for value in values]))

    try:
        gradient = jax.tree.leaves(jax.grad(objective)([None if f is None else jnp.asarray(f) for f in floating]))
    except Exception as error:
        return failure("pytree: grad", f"by the fields fails, {type(error).__name__}: {str(error).splitlines()[0]}")
    if all(np.all(np.isfinite(value)) for value in gradient):
        return passed("pytree: grad", "by the fields is finite")
    return failure("pytree: grad", f"by the fields is not finite: {[np.asarray(value) for value in gradient]}")


def relative(value: Any, expected: Any) -> float:
    """The largest difference, relative to the largest number expected."""
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    scale = np.max(np.abs(expected), initial=0.0)
    return float(np.max(np.abs(value - expected), initial=0.0) / (scale if scale > 0 else 1.0))


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, int))


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, float) or (_is_number(leaf) and jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating))
