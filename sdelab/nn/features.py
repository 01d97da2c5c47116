"""Features of a network, and what is still to be added to their channels."""

import functools
import itertools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sdelab.nn.convolution import Conv, add_bias
from sdelab.nn.layers import GroupNorm
from sdelab.nn.resampling import ResamplingConv, Taps, is_plain


class Features(eqx.Module):
    r"""The features $x_c + o_c$ of every channel c: an `image`, and an `offset` in float32.

    The biases of a residual stream are added to each other in `offset`, from block to block, and meet the image only before a filter
    or a convolution that pads it with zeros: a norm takes them as they are (`GroupNorm`), a linear map of the channels maps them as it
    maps a pixel, and doubled pixels and means of pixels have the same. In 16 bits the image is rounded without them.
    """

    image: Float[Array, "batch *space channels"]
    offset: Float[Array, "1 channels"]

    @classmethod
    def of(cls, image: Float[Array, "batch *space channels"]) -> "Features":
        """The image alone."""
        return cls(image, jnp.zeros((1, image.shape[-1]), jnp.float32))

    def whole(self) -> Float[Array, "batch *space channels"]:
        """In one array, of the dtype of the image."""
        return add_bias(self.image, self.offset[0])

    def scaled(self, scale: float) -> "Features":
        return Features(scale * self.image, scale * self.offset)

    def plus(self, other: "Features") -> "Features":
        return Features(self.image + other.image, self.offset + other.offset)

    def normalised(self, norm: GroupNorm) -> Float[Array, "batch *space channels"]:
        return norm(self.image, offset=self.offset)

    def before(self, taps: Taps) -> "Features":
        """Itself, or without an offset where the `taps` are a filter, which meets zeros around the image."""
        return self if is_plain(taps) else Features.of(self.whole())

    def resampled(self, resample: Callable[[Array, Taps], Array], taps: Taps) -> "Features":
        """By `upsample` or `downsample`."""
        x = self.before(taps)
        return Features(resample(x.image, taps), x.offset)


def joined(parts: Sequence[Features]) -> Features:
    """The channels of all `parts`, in order."""
    return Features(jnp.concatenate([x.image for x in parts], axis=-1), joined_offsets(parts))


def joined_offsets(parts: Sequence[Features]) -> Float[Array, "1 channels"]:
    return jnp.concatenate([x.offset for x in parts], axis=-1)


def offset_of(bias: nnx.Param | None) -> Float[Array, "1 channels"]:
    """Of a layer whose bias is to be added later."""
    assert bias is not None
    return bias[...].astype(jnp.float32)[None, :]


def convolved(layer: Conv | ResamplingConv, x: Float[Array, "batch *space channels"], scale: float = 1.0) -> Features:
    """`scale` times the layer's output."""
    return Features(layer.linear(x, scale=scale), scale * offset_of(layer.bias))


def map_channels(layer: nnx.Linear, parts: Sequence[Features], scale: float = 1.0) -> Features:
    """`scale` times the layer's output of the channels of all `parts`, in order, without an array of them all.

    The parameters are scaled, as those of `Conv`.
    """
    dtype = parts[0].image.dtype if layer.dtype is None else layer.dtype
    images, kernel = [x.image.astype(dtype) for x in parts], scale * layer.kernel[...]
    rows = split_channels(kernel.astype(dtype), images, axis=0)
    image = functools.reduce(jnp.add, [x @ part for x, part in zip(images, rows, strict=True)])
    return Features(image, joined_offsets(parts) @ kernel.astype(jnp.float32) + scale * offset_of(layer.bias))


def split_channels(array: Array, images: Sequence[Array], axis: int) -> list[Array]:
    """`array`, which has an entry for each channel of all `images`, cut into those of each."""
    ends = list(itertools.accumulate(x.shape[-1] for x in images))
    return jnp.split(array, ends[:-1], axis=axis)
