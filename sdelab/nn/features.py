"""Features of a network, and what is still to be added to their channels."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from sdelab.nn.convolution import Conv, add_bias


class Features(NamedTuple):
    r"""The features $x_c + o_c$ of every channel c: an `image` `(batch, *space, channels)`, an `offset` `(1, channels)` in float32.

    The biases of a residual stream are added to each other in `offset`, from block to block, and never to the image: a norm takes them
    as they are (`GroupNorm`), a linear map of the channels maps them as it maps a pixel, and doubled pixels and means of pixels have
    the same. What pads an image with zeros has to have them added first: `whole`.
    """

    image: Array
    offset: Array

    def scaled(self, scale: float) -> "Features":
        return Features(scale * self.image, scale * self.offset)

    def plus(self, other: "Features") -> "Features":
        return Features(self.image + other.image, self.offset + other.offset)


Stream: TypeAlias = Array | Features
"""Features, or the image alone."""


def features(x: Stream) -> Features:
    return x if isinstance(x, Features) else Features(x, jnp.zeros((1, x.shape[-1]), jnp.float32))


def whole(x: Stream) -> Array:
    """In one array, of the dtype of the image."""
    return add_bias(x.image, x.offset[0]) if isinstance(x, Features) else x


def joined(parts: Sequence[Stream]) -> Features:
    """The channels of all `parts`, in order."""
    images, offsets = zip(*(features(part) for part in parts), strict=True)
    return Features(jnp.concatenate(images, axis=-1), jnp.concatenate(offsets, axis=-1))


def offset_of(bias: nnx.Param | None) -> Array:
    """Of a layer whose bias is to be added later."""
    assert bias is not None
    return bias[...].astype(jnp.float32)[None, :]


def convolved(layer: Conv, x: Array, scale: float = 1.0) -> Features:
    """`scale` times the layer's output."""
    return Features(layer.linear(x, scale=scale), scale * offset_of(layer.bias))


def map_channels(layer: nnx.Linear, parts: Sequence[Features], scale: float = 1.0) -> Features:
    """`scale` times the layer's output of the channels of all `parts`, in order, without an array of them all.

    The parameters are scaled, as those of `Conv`.
    """
    images, offsets = [x.image for x in parts], jnp.concatenate([x.offset for x in parts], axis=-1)
    kernel = scale * layer.kernel[...]
    rows = split_channels(kernel.astype(images[0].dtype), images, axis=0)
    image = functools.reduce(jnp.add, [x @ part for x, part in zip(images, rows, strict=True)])
    return Features(image, offsets @ kernel.astype(jnp.float32) + scale * offset_of(layer.bias))


def split_channels(array: Array, images: Sequence[Array], axis: int) -> list[Array]:
    """`array`, which has an entry for each channel of all `images`, cut into those of each."""
    ends = list(itertools.accumulate(x.shape[-1] for x in images))
    return jnp.split(array, ends[:-1], axis=axis)
