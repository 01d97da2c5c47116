"""How a transformer knows where a token stands: fixed embeddings, rotations, or not at all.

Positions are the tokens' integer coordinates in their grid, computed from its shape at call time: a network takes any
resolution, in one, two or three dimensions.
"""

import abc
import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import check_positive


class AbstractPositions(abc.ABC):
    """What is added to the tokens once, and how queries and keys are turned in every attention."""

    @abc.abstractmethod
    def embed(self, tokens: Float[Array, "batch *grid width"]) -> Float[Array, "batch *grid width"]:
        """The tokens with their positions added."""

    @abc.abstractmethod
    def rotate(self, heads: Float[Array, "batch *grid heads size"]) -> Float[Array, "batch *grid heads size"]:
        """Queries, or keys, turned by their positions."""


@dataclasses.dataclass(frozen=True)
class NoPositions(AbstractPositions):
    """Tokens are a set: a permutation of them permutes the output."""

    def embed(self, tokens: Float[Array, "batch *grid width"]) -> Float[Array, "batch *grid width"]:
        return tokens

    def rotate(self, heads: Float[Array, "batch *grid heads size"]) -> Float[Array, "batch *grid heads size"]:
        return heads


@dataclasses.dataclass(frozen=True)
class SinCosPositions(AbstractPositions):
    r"""A fixed sum term: for each axis, the last one first, $[\sin(\omega_j p), \cos(\omega_j p)]$.

    $\omega_j = P^{-j/m}$ for j < m, with $m$ = width / (2 axes) rounded down and P = `max_period`; what is left of
    the width is zero. Vaswani et al. (2017), section 3.5, https://arxiv.org/abs/1706.03762; in two dimensions as in
    He et al. (2022), appendix A.1, https://arxiv.org/abs/2111.06377, and Peebles and Xie (2023).

    Fields: `max_period` > 0.
    """

    max_period: float = 10_000.0

    def __post_init__(self):
        check_positive(max_period=self.max_period)

    def embed(self, tokens: Float[Array, "batch *grid width"]) -> Float[Array, "batch *grid width"]:
        grid, width = tokens.shape[1:-1], tokens.shape[-1]
        angles = _angles(grid, _pairs(width, len(grid)), self.max_period)
        parts = [part for a in reversed(angles) for part in (jnp.sin(a), jnp.cos(a))]
        table = jnp.concatenate(parts, axis=-1)
        table = jnp.pad(table, [(0, 0)] * len(grid) + [(0, width - table.shape[-1])])
        return tokens + table.astype(tokens.dtype)[None]

    def rotate(self, heads: Float[Array, "batch *grid heads size"]) -> Float[Array, "batch *grid heads size"]:
        return heads


@dataclasses.dataclass(frozen=True)
class RotaryPositions(AbstractPositions):
    r"""Axial rotary positions: pairs of a head's channels turn by $\omega_j p$, so that scores depend on offsets alone.

    Each axis has $m$ = size / (2 axes) pairs, rounded down, with $\omega_j = b^{-j/m}$ for j < m and b = `base`; what is
    left of the head does not turn. Pairs are one channel of the first half and one of the second.
    Su et al. (2021), eq. 34, https://arxiv.org/abs/2104.09864; on grids Heo et al. (2024), section 3, whose base is the
    default, https://arxiv.org/abs/2403.13298.

    Fields: `base` > 0.
    """

    base: float = 100.0

    def __post_init__(self):
        check_positive(base=self.base)

    def embed(self, tokens: Float[Array, "batch *grid width"]) -> Float[Array, "batch *grid width"]:
        return tokens

    def rotate(self, heads: Float[Array, "batch *grid heads size"]) -> Float[Array, "batch *grid heads size"]:
        grid, size = heads.shape[1:-2], heads.shape[-1]
        angle = jnp.concatenate(_angles(grid, _pairs(size, len(grid)), self.base), axis=-1)[None, ..., None, :]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        pairs = angle.shape[-1]
        first, second, rest = jnp.split(heads.astype(jnp.float32), [pairs, 2 * pairs], axis=-1)
        turned = [first * cos - second * sin, first * sin + second * cos, rest]
        return jnp.concatenate(turned, axis=-1).astype(heads.dtype)


def _pairs(channels: int, axes: int) -> int:
    """Pairs of channels for each axis."""
    if channels < 2 * axes:
        raise ValueError(f"{channels} channels do not hold the positions of {axes} axes; accepted: {2 * axes} or more.")
    return channels // (2 * axes)


def _angles(grid: tuple[int, ...], count: int, base: float) -> list[Float[Array, "*grid count"]]:
    """For each axis of the grid, its coordinate times `count` frequencies in geometric progression from 1."""
    frequencies = jnp.exp(jnp.arange(count, dtype=jnp.float32) * (-math.log(base) / count))
    angles = []
    for axis, side in enumerate(grid):
        line = jnp.arange(side, dtype=jnp.float32)[:, None] * frequencies[None, :]
        shape = [side if i == axis else 1 for i in range(len(grid))]
        angles.append(jnp.broadcast_to(line.reshape(*shape, count), (*grid, count)))
    return angles
