"""Images to patches and back, in any number of spatial dimensions."""

import itertools
import math
from collections.abc import Sequence

from jaxtyping import Array, Shaped


def patchify(x: Shaped[Array, "batch *space channels"], patch: Sequence[int]) -> Shaped[Array, "batch *grid features"]:
    """One vector a patch: its pixels in reading order, each with all its channels. `patch` has a size for each axis.

    Errors: a side that is not a multiple of the patch's.
    """
    batch, *space, channels = x.shape
    if len(space) != len(patch) or any(side % size for side, size in zip(space, patch, strict=True)):
        raise ValueError(
            f"x has shape {x.shape}; this network takes (batch, *space, channels) with {len(patch)} spatial sides that "
            f"are multiples of {tuple(patch)}."
        )
    grid = [side // size for side, size in zip(space, patch, strict=True)]
    split = x.reshape(batch, *itertools.chain(*zip(grid, patch, strict=True)), channels)
    count = len(patch)
    outer, inner = [1 + 2 * i for i in range(count)], [2 + 2 * i for i in range(count)]
    return split.transpose(0, *outer, *inner, 2 * count + 1).reshape(batch, *grid, math.prod(patch) * channels)


def unpatchify(
    patches: Shaped[Array, "batch *grid features"], patch: Sequence[int]
) -> Shaped[Array, "batch *space channels"]:
    """The inverse of `patchify`."""
    batch, *grid, features = patches.shape
    count = len(patch)
    split = patches.reshape(batch, *grid, *patch, features // math.prod(patch))
    order = itertools.chain(*((1 + i, 1 + count + i) for i in range(count)))
    space = [tiles * size for tiles, size in zip(grid, patch, strict=True)]
    return split.transpose(0, *order, 2 * count + 1).reshape(batch, *space, -1)
