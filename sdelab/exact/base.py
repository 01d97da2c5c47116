r"""Distributions whose diffused score is known, the ground truth for solvers, likelihoods and networks.

Notation: data $x_0 \sim p_0$ of shape `(*event)`, $d$ dimensions in all, flattened in C order wherever a matrix acts on
them. Under an affine process $x_t = \alpha x_0 + \sigma\epsilon$ has the density $p_t$, and

1. the denoiser is $D(x) = E[x_0 \mid x_t = x]$ and the posterior covariance $\mathrm{Cov}[x_0 \mid x_t = x]$;
2. $\nabla\log p_t = (\alpha D - x)/\sigma^2$;
3. $\nabla^2\log p_t = (\alpha^2\,\mathrm{Cov}/\sigma^2 - I)/\sigma^2$.

Each quantity is computed from its own formula: (2) and (3) lose digits where $\sigma$ is small.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, ArrayLike, Float

from sdelab._broadcast import expand_right
from sdelab._typing import PRNGKey, State, Time
from sdelab.score.base import AbstractScore
from sdelab.sde import AbstractAffineSDE


class AbstractExactScore(AbstractScore):
    r"""The exact score of a distribution under an affine process, for `t` in (0, t_max], and in t = 0 if $p_0$ has a density.

    `x` is `(batch, *event)`; `t` a scalar or one time per sample. A score of data is unconditional: a `condition`
    that is not None is an error.
    """

    event_shape: AbstractVar[tuple[int, ...]]

    @abc.abstractmethod
    def log_prob(self, x: State, t: Time) -> Float[Array, "..."]:
        r"""$\log p_t(x)$ in nats, one number per sample."""

    @abc.abstractmethod
    def divergence(self, x: State, t: Time) -> Float[Array, "..."]:
        r"""$\nabla\cdot\nabla\log p_t(x)$, the trace of the score's Jacobian, one number per sample."""

    @abc.abstractmethod
    def posterior_covariance_product(self, x: State, t: Time, vector: State) -> State:
        r"""$\mathrm{Cov}[x_0 \mid x_t = x]\,v$ for one vector a sample, of the shape of `x`."""

    @abc.abstractmethod
    def posterior_covariance_diagonal(self, x: State, t: Time) -> State:
        r"""The variances $\mathrm{Var}[x_0^i \mid x_t = x]$, of the shape of `x`."""


class AbstractDistribution(eqx.Module):
    """A distribution of data with an exact score under every affine process. Its arrays are leaves."""

    @property
    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @abc.abstractmethod
    def sample(self, key: PRNGKey, n: int) -> State:
        """`n` independent draws, `(n, *event)`. Errors: an `n` that is not an integer >= 1."""

    @abc.abstractmethod
    def score(self, sde: AbstractAffineSDE) -> AbstractExactScore:
        """The score of the distribution diffused by `sde`."""


class AbstractDensity(AbstractDistribution):
    """A distribution with a density, which an affine process carries into one of the same kind."""

    @abc.abstractmethod
    def log_prob(self, x: State) -> Float[Array, "..."]:
        """Log-density in nats, one number per sample. Errors: a singular covariance."""

    @abc.abstractmethod
    def diffused(self, sde: AbstractAffineSDE, t: Time) -> "AbstractDensity":
        r"""The distribution of $x_t = \alpha x_0 + \sigma\epsilon$ at a scalar `t`."""


def as_floating(value: ArrayLike) -> Array:
    """An array of floating-point numbers; a floating dtype is kept."""
    array = value if isinstance(value, Array) else np.asarray(value)
    return jnp.asarray(array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float))


def flatten_event(x: State, event_shape: tuple[int, ...]) -> Float[Array, "..."]:
    """`(*lead, *event)` to `(*lead, d)`."""
    rank = x.ndim - len(event_shape)
    if rank < 0 or x.shape[rank:] != event_shape:
        raise ValueError(f"x has shape {x.shape}; accepted: (batch, *event) with the event shape {event_shape}.")
    return x.reshape(x.shape[:rank] + (math.prod(event_shape),))


def kernel_at(sde: AbstractAffineSDE, t: Time, x: State) -> tuple[Array, Array]:
    """`alpha` and `sigma` at `t` against the state `x`, in its dtype, with axes of size one appended."""
    return (
        expand_right(sde.alpha(t), x).astype(x.dtype),
        expand_right(sde.sigma(t), x).astype(x.dtype),
    )


def scalar_kernel_at(sde: AbstractAffineSDE, t: Time, dtype: Any) -> tuple[Array, Array]:
    """`alpha` and `sigma` at one time for all samples."""
    if jnp.shape(t) != ():
        raise ValueError(f"t has shape {jnp.shape(t)}; accepted: a scalar, one distribution is diffused to one time.")
    return jnp.asarray(sde.alpha(t)).astype(dtype), jnp.asarray(sde.sigma(t)).astype(dtype)


def check_unconditional(condition: Any) -> None:
    if condition is not None:
        raise ValueError("condition is not None, but the exact score of a distribution is unconditional.")
