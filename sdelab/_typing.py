"""Names for the arrays that pass between the floors."""

from typing import TypeAlias

from jaxtyping import Array, ArrayLike, Float, Key

State: TypeAlias = Float[Array, "..."]
"""`(batch, *event)`; images are NHWC. Inside `vmap` the batch axis is absent."""

Time: TypeAlias = Float[ArrayLike, "..."] | int
"""A scalar, or one time per sample: the leading shape of the state that it belongs to."""

Scalar: TypeAlias = Float[Array, ""] | float
"""A number that may be traced."""

PRNGKey: TypeAlias = Key[Array, ""]
"""One typed key, from `jax.random.key`."""

PRNGKeys: TypeAlias = Key[Array, " batch"]
"""One typed key per sample."""
