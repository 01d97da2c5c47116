"""Many small arrays of a loop, read in one piece a step."""

import itertools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


class Columns(NamedTuple):
    """Where an array stands: in the columns of its dtype, from `start` on."""

    dtype: int
    start: int
    shape: tuple[int, ...]


class RowTable(eqx.Module):
    """A tree of arrays of shape `(rows, ...)`, those of one dtype side by side in one of shape `(rows, width)`.

    A loop that carries the row of its next step has numbers in it; one that reads `array[index]` where it needs it has the
    reading fused into what is computed for every element of the state, and on CPU that is not vectorised then.
    """

    columns: tuple[Array, ...]
    places: tuple[Columns, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    @classmethod
    def of(cls, tree: Any) -> "RowTable":
        leaves, structure = jax.tree.flatten(tree)
        dtypes = sorted({leaf.dtype for leaf in leaves}, key=str)
        columns, places = [], {}
        for number, dtype in enumerate(dtypes):
            chosen = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
            widths = [math.prod(leaves[i].shape[1:]) for i in chosen]
            starts = itertools.accumulate(widths, initial=0)
            places |= {i: Columns(number, start, leaves[i].shape[1:]) for i, start in zip(chosen, starts, strict=False)}
            parts = [leaves[i].reshape(len(leaves[i]), width) for i, width in zip(chosen, widths, strict=True)]
            columns.append(jnp.concatenate(parts, axis=1))
        return cls(tuple(columns), tuple(places[i] for i in range(len(leaves))), structure)

    def row(self, index: Int[Array, ""]) -> tuple[Array, ...]:
        """What a loop carries: `as_tree` takes it apart."""
        return tuple(column[index] for column in self.columns)

    def as_tree(self, row: tuple[Array, ...]) -> Any:
        """The tree without the leading axis."""
        leaves = [row[d][start : start + math.prod(shape)].reshape(shape) for d, start, shape in self.places]
        return jax.tree.unflatten(self.structure, leaves)
