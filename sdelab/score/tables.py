r"""The tables of noise levels of the networks trained in discrete time, and where in them a time lies."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdelab._typing import Scalar

Entries = Float[Array | np.ndarray, "..."]


def linear_entry(first: Scalar, last: Scalar, n: int, index: Entries) -> Entries:
    """Entry `index` of `n` numbers from `first` to `last` at equal distances."""
    return first + index / max(n - 1, 1) * (last - first)


@functools.lru_cache(maxsize=8)
def ddpm_log_alpha(n: int, beta_min: float, beta_max: float) -> np.ndarray:
    r"""$\log\alpha_i = \tfrac12 \sum_{j \le i} \log(1 - \beta_j)$, float64, shape `(n,)`.

    $\beta_j$ is linear from $\beta_{min}/N$ to $\beta_{max}/N$, and $\alpha_i^2$ is DDPM's $\bar\alpha$. Ho et al. (2020), eq. 4,
    https://arxiv.org/abs/2006.11239.
    """
    betas = linear_entry(beta_min / n, beta_max / n, n, np.arange(float(n)))
    table = 0.5 * np.cumsum(np.log1p(-betas))
    table.flags.writeable = False
    return table


@functools.lru_cache(maxsize=8)
def smld_log_sigma(n: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    r"""$\log\sigma_i$, linear from the *largest* level at i = 0 to the smallest; float64, `(n,)`.

    The order of the labels; `sdelab.solvers.SMLD` counts in that of the time. Song and Ermon (2019), section 4.1,
    https://arxiv.org/abs/1907.05600.
    """
    table = np.asarray(linear_entry(math.log(sigma_max), math.log(sigma_min), n, np.arange(float(n))))
    table.flags.writeable = False
    return table


def table_index(t: Float[Array, "..."], n: int, *, slack: int = 8) -> Int[Array, "..."]:
    r"""$\lfloor t (N - 1) \rfloor$, where a t meant to be $i/(N - 1)$ gives i whatever its last digits.

    `slack`: how many units in the last place such a t may be off.
    """
    position = t * (n - 1)
    nearest = jnp.round(position)
    width = slack * jnp.finfo(position.dtype).eps * jnp.maximum(nearest, 1.0)
    return jnp.where(jnp.abs(position - nearest) <= width, nearest, jnp.floor(position)).astype(jnp.int32)
