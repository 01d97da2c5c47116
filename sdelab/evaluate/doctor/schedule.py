"""A process as plain numbers, in float64 on the host."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdelab.sde import AbstractAffineSDE


def kernel_at(sde: AbstractAffineSDE, t: float) -> tuple[float, float]:
    r"""$\alpha$ and $\sigma$ at a time."""
    return float(_evaluate(lambda sde, t: sde.alpha(t), sde, t)), float(_evaluate(lambda sde, t: sde.sigma(t), sde, t))


def levels_at(sde: AbstractAffineSDE, times: Any) -> np.ndarray:
    r"""The noise $\sigma/\alpha$ at the times, in units of the data."""
    return _evaluate(lambda sde, t: sde.sigma(t) / sde.alpha(t), sde, times)


def time_at(sde: AbstractAffineSDE, level: float) -> float:
    r"""The time at which the noise $\sigma/\alpha$ is `level`, or the nearest that there is."""
    low, high = (float(levels_at(sde, t)) for t in (0.0, sde.t_max))
    if level <= low or level >= high:
        return 0.0 if level <= low else sde.t_max
    return float(_evaluate(lambda sde, log_snr: sde.log_snr_inverse(log_snr), sde, -2.0 * np.log(level)))


def rates_at(sde: AbstractAffineSDE, times: Any) -> np.ndarray:
    r"""$\beta = -2\,d\log\alpha/dt$ at the times, the rate at which the signal's power goes."""
    decay = jax.grad(lambda t, sde: -2.0 * jnp.log(sde.alpha(t)))
    return _evaluate(lambda sde, t: jax.vmap(decay, in_axes=(0, None))(t, sde), sde, np.atleast_1d(times))


def is_variance_preserving(sde: AbstractAffineSDE) -> bool:
    r"""Whether $\alpha^2 + \sigma^2 = 1$ throughout."""
    times = np.linspace(0.0, sde.t_max, 9)
    power = _evaluate(lambda sde, t: sde.alpha(t) ** 2 + sde.sigma(t) ** 2, sde, times)
    return bool(np.allclose(power, 1.0, rtol=0.0, atol=1e-6))


def _evaluate(function: Callable[[AbstractAffineSDE, jax.Array], jax.Array], sde: AbstractAffineSDE, x: Any) -> Any:
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.asarray(function(sde, jnp.asarray(x, jnp.float64)), np.float64)
