r"""Affine maps of the plane as 3 x 3 matrices: $(x, y, 1)^T \mapsto A (x, y, 1)^T$, $x$ to the right, $y$ downwards."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Matrix = Float[Array, "3 3"]


def translation(x: Any, y: Any) -> Matrix:
    r"""$(x', y') \mapsto (x' + x, y' + y)$."""
    return _matrix([[1.0, 0.0, x], [0.0, 1.0, y]])


def scaling(x: Any, y: Any) -> Matrix:
    r"""$(x', y') \mapsto (x x', y y')$."""
    return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0]])


def rotation(angle: Any) -> Matrix:
    """By `angle`, in radians, from the x axis towards the y axis: clockwise to the eye."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    return _matrix([[c, -s, 0.0], [s, c, 0.0]])


def chain(*maps: Matrix) -> Matrix:
    """The product; the last map is applied first. In full precision: a TPU's default rounds coordinates to 8 bits."""
    product = maps[0]
    for matrix in maps[1:]:
        product = jnp.matmul(product, matrix, precision=lax.Precision.HIGHEST)
    return product


def _matrix(rows: Any) -> Matrix:
    return jnp.stack(
        [jnp.stack([jnp.asarray(entry, jnp.float32) for entry in row]) for row in [*rows, [0.0, 0.0, 1.0]]]
    )
