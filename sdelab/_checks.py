"""Checks of arguments, with errors that name the argument, its value and what is accepted.

Only concrete numbers are checked: inside a transformation there is nothing to compare.
"""

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike


def is_concrete(*values: Any) -> bool:
    """Whether all leaves of the values can be read now (none is traced)."""
    if all(type(value) in _PLAIN for value in values):  # the usual case, and at every call of a solve
        return True
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


_PLAIN = (float, int, np.ndarray)


def check_positive(**arguments: ArrayLike) -> None:
    for name, value in arguments.items():
        _check(name, value, lambda v: v > 0, "a finite number > 0")


def check_nonnegative(**arguments: ArrayLike) -> None:
    for name, value in arguments.items():
        _check(name, value, lambda v: v >= 0, "a finite number >= 0")


def check_unit_interval(**arguments: ArrayLike) -> None:
    for name, value in arguments.items():
        _check(name, value, lambda v: (v >= 0) & (v <= 1), "a number in [0, 1]")


def check_increasing(**arguments: ArrayLike) -> None:
    """The arguments, in the order given, must increase strictly."""
    (low_name, low), (high_name, high) = arguments.items()
    if type(low) is float and type(high) is float and low < high:
        return
    if is_concrete(low, high) and not np.all(np.less(low, high)):
        raise ValueError(f"{low_name} = {low} must be less than {high_name} = {high}.")


def check_below(bound: float, **arguments: ArrayLike) -> None:
    for name, value in arguments.items():
        _check(name, value, lambda v: v < bound, f"less than {bound}")


def check_linear_rate(beta_min: ArrayLike, beta_max: ArrayLike, t_max: float) -> None:
    """The rate beta_min + t (beta_max - beta_min) must be >= 0 on the interval, and somewhere > 0."""
    check_nonnegative(beta_min=beta_min, beta_max=beta_max)
    if type(beta_min) is float and type(beta_max) is float and 0 < beta_min <= beta_max:
        return
    if not is_concrete(beta_min, beta_max):
        return
    end = np.asarray(beta_min) + t_max * (np.asarray(beta_max) - np.asarray(beta_min))
    if np.any(end < 0) or np.any((np.asarray(beta_min) == 0) & (end == 0)):
        raise ValueError(
            f"beta_min = {beta_min}, beta_max = {beta_max} is not accepted with t_max = {t_max}; the rate must be >= 0 on "
            "the whole interval, and not zero everywhere."
        )


def check_finite(**arguments: ArrayLike) -> None:
    for name, value in arguments.items():
        _check(name, value, lambda v: np.isfinite(v), "finite")


def check_instance(kind: type, **arguments: Any) -> None:
    for name, value in arguments.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} = {value!r} is not accepted; {name} must be an instance of {kind.__name__}.")


def check_count(**arguments: int) -> None:
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} = {value!r} is not accepted; {name} must be an integer >= 1.")


def check_optional_count(**arguments: int | None) -> None:
    check_count(**{name: value for name, value in arguments.items() if value is not None})


def as_time(t: ArrayLike, t_max: ArrayLike) -> Array:
    """`t` as a floating-point array. A concrete `t` must lie in `[0, t_max]`, up to the rounding of `t_max`."""
    if is_concrete(t, t_max):
        times = np.asarray(t)
        inside = (times >= 0) & (times <= t_max * (1 + 1e-6))
        if not np.all(inside):
            bad = times[~inside].ravel()[0]
            raise ValueError(f"t = {bad} lies outside the process; accepted: t in [0, {t_max}].")
    return jnp.asarray(t) * 1.0  # integers become floats, Python numbers stay weakly typed


def check_interval(t_min: float, t_max: float) -> None:
    check_nonnegative(t_min=t_min)
    check_positive(t_max=t_max)
    check_increasing(t_min=t_min, t_max=t_max)


def concrete_time(value: Any) -> float:
    """Converter of `t_min` and `t_max`: they are structure (grids are built from them), never traced."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            "t_min and t_max must be concrete numbers: the ends of the interval are not differentiated or mapped over."
        )
    return float(value)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not among the known ones, with the closest of them."""
    names = sorted(known)
    closest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {closest[0]!r}?" if closest else ""
    return ValueError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


def _check(name: str, value: ArrayLike, accepted: Callable[[Any], Any], domain: str) -> None:
    if type(value) is float and math.isfinite(value) and accepted(value):
        return  # as NumPy would find, in a hundredth of its time
    if not is_concrete(value):
        return
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or not np.all(np.isfinite(array)) or not np.all(accepted(array)):
        raise ValueError(f"{name} = {value} is not accepted; {name} must be {domain}.")
