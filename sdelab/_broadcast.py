"""The one place where times and states are broadcast against each other."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float


def expand_right(value: ArrayLike, x: Float[Array, "..."]) -> Array:
    """Appends axes to `value` until it broadcasts against `x`.

    `value` is a scalar, or has the leading shape of `x` (`(batch,)` for a state `(batch, *event)`).
    """
    array = jnp.asarray(value)
    if array.shape != x.shape[: array.ndim]:
        raise ValueError(
            f"t has shape {array.shape}, which does not lead the shape {x.shape} of x; "
            f"accepted: a scalar, or shape {x.shape[:1]} (one time per sample)."
        )
    return array.reshape(array.shape + (1,) * (x.ndim - array.ndim))


def event_size(shape: tuple[int, ...]) -> int:
    """Number of dimensions of one sample of a state of shape `(batch, *event)`."""
    return int(np.prod(shape[1:], dtype=np.int64))


def sum_event(x: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """Sums over all axes but the first."""
    return jnp.sum(x.reshape(x.shape[0], -1), axis=1)
