r"""Interpolation between latent codes, along the sphere on which a Gaussian of many dimensions lives."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sdelab._broadcast import event_size
from sdelab._checks import is_concrete
from sdelab._compile import jit
from sdelab._typing import State


def interpolate(z0: State, z1: State, weights: ArrayLike) -> Float[Array, "weights batch ..."]:
    r"""Spherical interpolation of two batches of codes, shape `(weights, batch, *event)`: `z0` at weight 0, `z1` at 1.

    With the unit vectors $e_0, e_1$ of a pair and the angle $\theta$ between them, the direction at weight w is
    $\frac{\sin((1 - w)\theta)}{\sin\theta} e_0 + \frac{\sin(w\theta)}{\sin\theta} e_1$, at constant speed on the great circle, and the
    length runs linearly from $\|z_0\|$ to $\|z_1\|$. For codes of equal length that is the usual slerp. Straight lines
    would pass through shorter codes, which the prior never draws. Shoemake (1985),
    https://doi.org/10.1145/325334.325242; for codes of the probability flow, Song, Meng and Ermon (2020), appendix D,
    https://arxiv.org/abs/2010.02502.

    Parallel codes are interpolated on their line. Opposite ones have no shortest circle: one through the axis
    on which `z0` is smallest is taken. `z0`, `z1`: `(batch, *event)`, codes of one shape; each pair by itself. `weights`:
    one number or `(n,)`; outside [0, 1] they extrapolate. Errors: codes of different shapes, of one dimension, or zero.
    """
    z0, z1 = jnp.asarray(z0) * 1.0, jnp.asarray(z1) * 1.0
    weights = jnp.atleast_1d(jnp.asarray(weights, jnp.result_type(z0)))
    if z0.shape != z1.shape or z0.ndim < 2 or event_size(z0.shape) < 2:
        raise ValueError(
            f"z0 has shape {z0.shape}, z1 {z1.shape}; accepted: one shape (batch, *event) of at least two dimensions each."
        )
    if weights.ndim != 1:
        raise ValueError(f"weights has shape {weights.shape}; accepted: a number, or shape (n,).")
    flat = [z.reshape(z.shape[0], -1) for z in (z0, z1)]
    for name, z in zip(("z0", "z1"), flat, strict=True):
        if is_concrete(z) and not np.all(np.any(np.asarray(z) != 0, axis=1)):
            raise ValueError(f"{name} has a code of length 0, which has no direction; accepted: codes other than 0.")
    return _points(*flat, weights).reshape(weights.shape[0], *z0.shape)


@jit
def _points(
    z0: Float[Array, "batch d"], z1: Float[Array, "batch d"], weights: Float[Array, " n"]
) -> Float[Array, "n batch d"]:
    return jax.vmap(_on_the_circle, (0, 0, None), out_axes=1)(z0, z1, weights)


def _on_the_circle(z0: Float[Array, " d"], z1: Float[Array, " d"], weights: Float[Array, " n"]) -> Float[Array, "n d"]:
    norm0, norm1 = jnp.linalg.norm(z0), jnp.linalg.norm(z1)
    e0, e1 = z0 / norm0, z1 / norm1
    side = _across(e0, e1)
    angle = jnp.arctan2(_inner(e1, side), _inner(e0, e1))  # arccos would lose half the digits near 0 and pi
    length = (1.0 - weights) * norm0 + weights * norm1
    directions = jnp.outer(jnp.cos(weights * angle), e0) + jnp.outer(jnp.sin(weights * angle), side)
    return length[:, None] * directions


def _across(e0: Float[Array, " d"], e1: Float[Array, " d"]) -> Float[Array, " d"]:
    """The unit vector across `e0` towards `e1`; where there is none, across `e0` along its smallest axis."""
    towards = e1 - _inner(e0, e1) * e0
    axis = jax.nn.one_hot(jnp.argmin(jnp.abs(e0)), e0.size, dtype=e0.dtype)
    other = axis - _inner(e0, axis) * e0
    tiny = jnp.sum(towards**2) < (8.0 * jnp.finfo(e0.dtype).eps) ** 2
    chosen = jnp.where(tiny, other, towards)
    chosen = chosen - _inner(e0, chosen) * e0
    return chosen / jnp.linalg.norm(chosen)


def _inner(a: Float[Array, " d"], b: Float[Array, " d"]) -> Float[Array, ""]:
    """In full precision: accelerators round the factors of products to fewer digits by default."""
    return jnp.vdot(a, b, precision=jax.lax.Precision.HIGHEST)
