"""Gradient accumulation: the mean over a batch, with one piece of it in memory at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def accumulated(compute: Callable[[Any, Any], Any], pieces: int) -> Callable[[Any, Any], Any]:
    """The mean of `compute(params, piece)`, a tree of floats, over `pieces` equal parts of a batch, in turn.

    Piece j has the rows j, j + pieces, ...: rows that lie on one device stay there. Keys come with the rows, so each
    sample has the noise that it has without accumulation, and the mean is the same up to rounding.
    `pieces` must divide the batch: `AbstractPlacement.check_batch_size`.
    """
    if pieces == 1:
        return compute

    def mean(params: Any, batch: Any) -> Any:
        split = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, pieces, *x.shape[1:]), 1, 0), batch)

        def add(total: Any, piece: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, compute(params, piece)), None

        shapes = jax.eval_shape(compute, params, jax.tree.map(lambda x: x[0], split))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, split)
        return jax.tree.map(lambda x: x / pieces, total)

    return mean
