"""The blocks of `NCSNpp`: residual block, attention, and the layers that change the resolution."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from sdelab._checks import check_nonnegative, unknown_name
from sdelab._typing import PRNGKeys
from sdelab.nn.activation import swish
from sdelab.nn.attention import attend
from sdelab.nn.convolution import Conv, check_dims
from sdelab.nn.features import Features, convolved, joined_offsets, map_channels, offset_of, split_channels
from sdelab.nn.initialization import uniform_fan_avg
from sdelab.nn.layers import GroupNorm, at_least_single, check_rate, dropout, multiply_add
from sdelab.nn.resampling import (
    PLAIN,
    ResamplingConv,
    check_taps,
    convolve_downsample,
    convolve_upsampled,
    downsample,
    upsample,
    upsample_convolve,
)

ACTIVATIONS = {
    "elu": jax.nn.elu,
    "lrelu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "relu": jax.nn.relu,
    "swish": swish,
}
BLOCKS = ("biggan", "ddpm")


@dataclasses.dataclass(frozen=True)
class Common:
    """What all blocks of one network have in common: arguments of `NCSNpp`, and the width of the embedding or 0."""

    block: str
    resample_with_conv: bool
    fir: tuple[float | int, ...] | None
    embedding: int
    dropout: float | int
    groups: int | None
    activation: str
    init_scale: float | int
    skip_rescale: bool
    dims: int
    dtype: Any
    param_dtype: Any

    def __post_init__(self):
        if self.block not in BLOCKS:
            raise unknown_name("block", self.block, BLOCKS)
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)
        if self.fir is not None:
            check_taps(fir=self.fir)
        check_rate(self.dropout)
        check_nonnegative(init_scale=self.init_scale)
        check_dims(self.dims)

    @property
    def taps(self) -> tuple[float | int, ...]:
        return PLAIN if self.fir is None else self.fir

    def settings(self, rngs: nnx.Rngs) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype, "rngs": rngs}

    def norm(self, channels: int) -> GroupNorm:
        groups = min(channels // 4, 32) if self.groups is None else self.groups
        return GroupNorm(channels, groups=groups, epsilon=1e-6, param_dtype=self.param_dtype)

    def linear(self, inside: int, outside: int, rngs: nnx.Rngs, *, scale: float | int = 1.0) -> nnx.Linear:
        return nnx.Linear(inside, outside, kernel_init=uniform_fan_avg(scale), **self.settings(rngs))

    def embedding_linear(self, inside: int, outside: int, rngs: nnx.Rngs) -> nnx.Linear:
        """Of the label's embedding."""
        settings = self.settings(rngs) | {"dtype": at_least_single(self.dtype)}
        return nnx.Linear(inside, outside, kernel_init=uniform_fan_avg(), **settings)

    def conv(self, inside: int, outside: int, rngs: nnx.Rngs, *, scale: float | int = 1.0) -> Conv:
        init = uniform_fan_avg(scale)
        return Conv(inside, outside, 3, dims=self.dims, kernel_init=init, **self.settings(rngs))

    def activate(self, h: Array) -> Array:
        return ACTIVATIONS[self.activation](h)

    @property
    def rescaling(self) -> float:
        """The factor of a sum of skip and branch: 1 / sqrt(2) with `skip_rescale`, so that the variance stays."""
        return float(np.sqrt(0.5)) if self.skip_rescale else 1.0


class ResidualBlock(nnx.Module):
    r"""$(\mathrm{skip}(x) + C_2\,\mathrm{act}(\mathrm{norm}(C_1\,R\,\mathrm{act}(\mathrm{norm}(x)) + E e))) / \sqrt 2$.

    R changes the resolution of branch and skip, if the block does; the skip is linear where R or the width changes and
    the identity elsewhere. `number` tells the dropout of the blocks apart. Song et al. (2021), appendix H,
    https://arxiv.org/abs/2011.13456, after Brock et al. (2019), figure 15, https://arxiv.org/abs/1809.11096; without
    R it is DDPM's, Ho et al. (2020), appendix B, https://arxiv.org/abs/2006.11239.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        common: Common,
        number: int,
        rngs: nnx.Rngs,
        *,
        resample: Literal["up", "down"] | None = None,
    ):
        self.common, self.number, self.resample = common, number, resample
        self.norm1 = common.norm(inside)
        self.conv1 = common.conv(inside, outside, rngs)
        if common.embedding:
            self.embedding = common.embedding_linear(common.embedding, outside, rngs)
        self.norm2 = common.norm(outside)
        self.conv2 = common.conv(outside, outside, rngs, scale=common.init_scale)
        self.has_linear_skip = inside != outside or resample is not None
        if self.has_linear_skip:
            self.skip = common.linear(inside, outside, rngs)

    def __call__(self, x: Features | list[Features], embedding: Array | None, keys: PRNGKeys | None) -> Features:
        """`embedding` is `(batch, width)`, after its activation; None in a network without noise conditioning.

        Several `x` stand for all their channels, in order. They are never concatenated before the convolution: what
        comes back would be read whole for each of them.
        """
        common, parts = self.common, x if isinstance(x, list) else [x]
        offset = offset_of(self.conv1.bias)
        if embedding is not None:
            offset = offset + self.embedding(embedding).astype(jnp.float32)
        h = common.activate(self.norm2(self._first(self._normalised(parts)), offset=offset))
        h = dropout(h, common.dropout, keys, self.number)
        return convolved(self.conv2, h, common.rescaling).plus(self._skipped(parts))

    def _first(self, h: Array) -> Array:
        """Without the bias, which is the norm's."""
        if self.resample == "up":
            return convolve_upsampled(self.conv1, h, self.common.taps)
        return self.conv1.linear(downsample(h, self.common.taps) if self.resample == "down" else h)

    def _skipped(self, parts: Sequence[Features]) -> Features:
        """Times the factor of the sum. The map of the channels is taken at the lower of the two resolutions."""
        scale, taps = self.common.rescaling, self.common.taps
        if not self.has_linear_skip:
            return parts[0].scaled(scale)
        if self.resample == "down":
            parts = [x.resampled(downsample, taps) for x in parts]
        if self.resample == "up":
            out = map_channels(self.skip, [x.before(taps) for x in parts], scale)
            return Features(upsample(out.image, taps), out.offset)  # the bias comes after the filter
        return map_channels(self.skip, parts, scale)

    def _normalised(self, parts: Sequence[Features]) -> Array:
        """Normalised, activated and concatenated."""
        images = [x.image for x in parts]
        gain_and_shift = self.norm1.gain_and_shift(images, offset=joined_offsets(parts))
        gains, shifts = (split_channels(array, images, axis=-1) for array in gain_and_shift)
        triples = zip(images, gains, shifts, strict=True)
        return jnp.concatenate([self.common.activate(multiply_add(*triple)) for triple in triples], axis=-1)


class AttentionBlock(nnx.Module):
    """Self-attention with one head between all pixels, added to its input.

    Wang et al. (2018), section 3, https://arxiv.org/abs/1711.07971.
    """

    def __init__(self, channels: int, common: Common, rngs: nnx.Rngs):
        self.common = common
        self.norm = common.norm(channels)
        self.query = common.linear(channels, channels, rngs)
        self.key = common.linear(channels, channels, rngs)
        self.value = common.linear(channels, channels, rngs)
        self.out = common.linear(channels, channels, rngs, scale=common.init_scale)

    def __call__(self, x: Features) -> Features:
        h, scale = x.normalised(self.norm), self.common.rescaling
        mixed = Features.of(attend(self.query(h), self.key(h), self.value(h)))
        return map_channels(self.out, [mixed], scale).plus(x.scaled(scale))


class Downsampling(nnx.Module):
    """Half the resolution. With a convolution it is strided, after the filter `fir` if there is one.

    Called as a residual block is; neither embedding nor keys matter.
    """

    def __init__(self, inside: int, outside: int, common: Common, rngs: nnx.Rngs, *, with_conv: bool):
        self.taps, self.with_conv = common.taps, with_conv
        settings = {"dims": common.dims, **common.settings(rngs)}
        if with_conv and common.fir is None:
            # the published padding: none before, so that the kernel is centred on odd pixels
            self.conv = Conv(inside, outside, 3, stride=2, padding=((0, 1),) * common.dims, **settings)
        elif with_conv:
            self.conv = ResamplingConv(convolve_downsample, inside, outside, 3, taps=common.taps, **settings)

    def __call__(self, x: Features, embedding: Array | None = None, keys: PRNGKeys | None = None) -> Features:
        if not self.with_conv:
            return x.resampled(downsample, self.taps)
        return convolved(self.conv, x.whole())


class Upsampling(nnx.Module):
    """Twice the resolution, by `fir` or the nearest neighbour; `with_conv` also a convolution.

    Called as a residual block is; neither embedding nor keys matter.
    """

    def __init__(self, inside: int, outside: int, common: Common, rngs: nnx.Rngs, *, with_conv: bool):
        self.taps, self.with_conv = common.taps, with_conv
        if with_conv:
            # with plain taps: the nearest neighbour, then the convolution
            settings = {"dims": common.dims, **common.settings(rngs)}
            self.conv = ResamplingConv(upsample_convolve, inside, outside, 3, taps=common.taps, **settings)

    def __call__(self, x: Features, embedding: Array | None = None, keys: PRNGKeys | None = None) -> Features:
        return convolved(self.conv, x.whole()) if self.with_conv else x.resampled(upsample, self.taps)
