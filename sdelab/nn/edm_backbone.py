"""The U-Net that EDM's two networks have in common: what lies between their first convolution and their output."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._checks import check_count
from sdelab._typing import PRNGKeys
from sdelab.nn.convolution import check_dims
from sdelab.nn.edm_block import BlockStyle, EDMBlock, Resample
from sdelab.nn.features import Features, joined
from sdelab.nn.layers import check_rate
from sdelab.nn.ncsnpp_pyramid import AbstractInput
from sdelab.nn.rematerialisation import run, run_again
from sdelab.nn.resampling import downsample, upsample


@dataclasses.dataclass(frozen=True)
class UNetPlan:
    """The sizes of a U-Net; the fields are the arguments of `SongUNet` and `ADM` of these names."""

    image_channels: int
    image_size: int
    out_channels: int | None
    channels: int
    multipliers: tuple[int | float, ...]
    blocks: int
    attention_resolutions: tuple[int, ...]
    embedding_multiplier: int
    dropout: float | int
    dims: int
    rematerialise: bool

    def __post_init__(self):
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "attention_resolutions", tuple(self.attention_resolutions))
        check_count(image_channels=self.image_channels, image_size=self.image_size, channels=self.channels)
        check_count(blocks=self.blocks, embedding_multiplier=self.embedding_multiplier, out_channels=self.out)
        check_rate(self.dropout)
        check_dims(self.dims)
        if not self.multipliers:
            raise ValueError("multipliers = () is not accepted; multipliers must name at least one resolution.")
        for multiplier in self.multipliers:
            width = 0.0 if isinstance(multiplier, bool | str) else multiplier * self.channels
            if width < 0.5 or abs(width - round(width)) > 1e-6:
                raise ValueError(
                    f"multipliers = {multiplier!r} is not accepted; multipliers must be greater than 0, and each of them times "
                    f"the {self.channels} channels an integer."
                )
        if self.image_size % self.unit:
            raise ValueError(
                f"image_size = {self.image_size} is not accepted; image_size must be a multiple of {self.unit}, so that "
                f"it can be halved to {self.levels} resolutions."
            )
        if not set(self.attention_resolutions) <= set(self.sides):
            raise ValueError(
                f"attention_resolutions = {self.attention_resolutions} is not accepted; the network has the "
                f"resolutions {', '.join(map(str, self.sides))}."
            )

    @property
    def out(self) -> int:
        return self.image_channels if self.out_channels is None else self.out_channels

    @property
    def levels(self) -> int:
        return len(self.multipliers)

    @property
    def unit(self) -> int:
        """What divides the sides of an image."""
        return 2 ** (self.levels - 1)

    @property
    def sides(self) -> list[int]:
        """Of an image of `image_size`, at each level."""
        return [self.image_size >> level for level in range(self.levels)]

    @property
    def widths(self) -> list[int]:
        return [round(self.channels * multiplier) for multiplier in self.multipliers]

    @property
    def embedding_width(self) -> int:
        return self.channels * self.embedding_multiplier

    def check_image(self, x: Array) -> None:
        """Any sides will do that can be halved to the lowest level."""
        sides = x.shape[1:-1]
        if len(sides) != self.dims or x.shape[-1] != self.image_channels or any(side % self.unit for side in sides):
            space = ("length", "height, width", "depth, height, width")[self.dims - 1]
            raise ValueError(
                f"x has shape {x.shape}; this network takes arrays (batch, {space}, {self.image_channels}) whose sides "
                f"are multiples of {self.unit}."
            )


class EDMBackbone(nnx.Module):
    """Blocks down to the lowest resolution and up again, each on the way up with what its counterpart left.

    The first block in the middle always attends. Karras et al. (2022), https://arxiv.org/abs/2206.00364.

    Arguments: `first_channels`, that come in; `plan` and `style`, see there.
    """

    def __init__(
        self,
        first_channels: int,
        plan: UNetPlan,
        style: BlockStyle,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.plan, self._run = plan, run_again if plan.rematerialise else run
        settings: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        settings |= {"dropout": plan.dropout, "dims": plan.dims}
        numbers = itertools.count()

        def block(before: int, after: int, attends: bool = False, resample: Resample | None = None) -> EDMBlock:
            heads, number = style.heads(after) if attends else 0, next(numbers)
            own: dict[str, Any] = {"resample": resample, "heads": heads, "number": number}
            return EDMBlock(before, after, plan.embedding_width, style, **own, **settings)

        self.down, self.encoder, self.decoder, self.up = nnx.Dict(), nnx.Dict(), nnx.Dict(), nnx.Dict()
        attention = [side in plan.attention_resolutions for side in plan.sides]
        h, skips = first_channels, [first_channels]
        for level, width in enumerate(plan.widths):
            if level > 0:
                self.down[f"level{level}"] = block(h, h, resample=downsample)
                skips.append(h)
            for i in range(plan.blocks):
                self.encoder[f"level{level}_block{i}"] = block(h, width, attention[level])
                h = width
                skips.append(h)
        self.middle = nnx.Dict({"before": block(h, h, True), "after": block(h, h)})
        for level, width in reversed(list(enumerate(plan.widths))):
            if level < plan.levels - 1:
                self.up[f"level{level}"] = block(h, h, resample=upsample)
            for i in range(plan.blocks + 1):
                attends = attention[level] and i > plan.blocks - style.attention_up
                self.decoder[f"level{level}_block{i}"] = block(h + skips.pop(), width, attends)
                h = width

    def encode(
        self,
        h: Features,
        embedding: Float[Array, "batch width"],
        keys: PRNGKeys | None,
        image: Float[Array, "batch *space image"],
        entry: AbstractInput,
    ) -> list[Features]:
        """What the way up will join, in order; `entry` is how the `image` enters below the first level."""
        skips, pyramid = [h], Features.of(image)
        for level in range(self.plan.levels):
            if level > 0:
                h = self._run(self.down[f"level{level}"], h, embedding, keys)
                pyramid, h = entry.step(level - 1, pyramid, h)
                skips.append(h)
            for i in range(self.plan.blocks):
                h = self._run(self.encoder[f"level{level}_block{i}"], h, embedding, keys)
                skips.append(h)
        return skips

    def decode(
        self, skips: list[Features], embedding: Float[Array, "batch width"], keys: PRNGKeys | None
    ) -> Iterator[tuple[int, Features]]:
        """Yields each level on the way up, lowest first, with what leaves it. Empties `skips`."""
        h = self._run(self.middle["before"], skips[-1], embedding, keys)
        h = self._run(self.middle["after"], h, embedding, keys)
        for level in reversed(range(self.plan.levels)):
            if level < self.plan.levels - 1:
                h = self._run(self.up[f"level{level}"], h, embedding, keys)
            for i in range(self.plan.blocks + 1):
                h = self._run(self.decoder[f"level{level}_block{i}"], joined([h, skips.pop()]), embedding, keys)
            yield level, h
