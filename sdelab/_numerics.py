"""Elementary functions with the derivatives that their users need."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


def safe_sqrt(x: ArrayLike) -> Array:
    """The square root, with derivative 0 at 0 instead of an infinity, which times 0 would be NaN; NaN where x < 0."""
    x = jnp.asarray(x)
    zero = x == 0
    return jnp.where(zero, 0.0 * x, jnp.sqrt(jnp.where(zero, 1.0 + 0.0 * x, x)))
