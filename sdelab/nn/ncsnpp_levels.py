"""The blocks of one resolution of `NCSNpp`, on either way."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from flax import nnx
from jaxtyping import Array

from sdelab._typing import PRNGKeys
from sdelab.nn.features import Features
from sdelab.nn.ncsnpp_blocks import AttentionBlock, Common, Downsampling, ResidualBlock, Upsampling

Run = Callable[..., Any]
"""`run` or `run_again` of `sdelab.nn.rematerialisation`."""


class DownLevel(nnx.Module):
    """Residual blocks, each followed by attention if the level has it. Every output is a skip."""

    def __init__(
        self,
        inside: int,
        width: int,
        blocks: int,
        has_attention: bool,
        common: Common,
        numbers: Iterator[int],
        rngs: nnx.Rngs,
    ):
        self.count, self.has_attention = blocks, has_attention
        insides = [inside] + [width] * (blocks - 1)
        self.blocks = nnx.Dict(
            {f"block{i}": ResidualBlock(n, width, common, next(numbers), rngs) for i, n in enumerate(insides)}
        )
        attended = range(blocks) if has_attention else ()
        self.attention = nnx.Dict({f"block{i}": AttentionBlock(width, common, rngs) for i in attended})

    def __call__(self, h: Features, embedding: Array | None, keys: PRNGKeys | None, run: Run) -> list[Features]:
        outputs = []
        for i in range(self.count):
            h = run(self.blocks[f"block{i}"], h, embedding, keys)
            if self.has_attention:
                h = run(self.attention[f"block{i}"], h)
            outputs.append(h)
        return outputs


class Middle(nnx.Module):
    """Attention between two residual blocks, at the lowest resolution."""

    def __init__(self, width: int, common: Common, numbers: Iterator[int], rngs: nnx.Rngs):
        self.before = ResidualBlock(width, width, common, next(numbers), rngs)
        self.attention = AttentionBlock(width, common, rngs)
        self.after = ResidualBlock(width, width, common, next(numbers), rngs)

    def __call__(self, h: Features, embedding: Array | None, keys: PRNGKeys | None, run: Run) -> Features:
        h = run(self.before, h, embedding, keys)
        h = run(self.attention, h)
        return run(self.after, h, embedding, keys)


class UpLevel(nnx.Module):
    """Residual blocks, one for each skip that it takes, with attention after the last if the level has it."""

    def __init__(
        self,
        inside: int,
        skips: list[int],
        width: int,
        has_attention: bool,
        common: Common,
        numbers: Iterator[int],
        rngs: nnx.Rngs,
    ):
        self.has_attention = has_attention
        insides = [inside] + [width] * (len(skips) - 1)
        pairs = enumerate(zip(insides, skips, strict=True))
        self.blocks = nnx.Dict(
            {f"block{i}": ResidualBlock(n + skip, width, common, next(numbers), rngs) for i, (n, skip) in pairs}
        )
        if has_attention:
            self.attention = AttentionBlock(width, common, rngs)

    def __call__(
        self, h: Features, skips: list[Features], embedding: Array | None, keys: PRNGKeys | None, run: Run
    ) -> Features:
        for i, skip in enumerate(skips):
            h = run(self.blocks[f"block{i}"], [h, skip], embedding, keys)
        return run(self.attention, h) if self.has_attention else h


def between_levels(
    direction: Literal["up", "down"], width: int, common: Common, numbers: Iterator[int], rngs: nnx.Rngs
) -> nnx.Module:
    """What changes the resolution, called as a residual block is."""
    if common.block == "biggan":
        return ResidualBlock(width, width, common, next(numbers), rngs, resample=direction)
    layer = Upsampling if direction == "up" else Downsampling
    return layer(width, width, common, rngs, with_conv=common.resample_with_conv)
