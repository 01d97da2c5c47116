"""The diffusion transformer, and the sizes it was published in."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sdelab._checks import check_count, check_positive
from sdelab._typing import PRNGKeys
from sdelab.nn.attention import attend
from sdelab.nn.convolution import check_dims
from sdelab.nn.dit_embedding import DiTEmbedding
from sdelab.nn.label_dropout import check_dropout
from sdelab.nn.layers import at_least_single, dropout
from sdelab.nn.patches import patchify, unpatchify
from sdelab.nn.positions import AbstractPositions, SinCosPositions
from sdelab.nn.rematerialisation import run, run_again

DIT_SIZES = {
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
    "L": {"width": 1024, "depth": 24, "heads": 16},
    "XL": {"width": 1152, "depth": 28, "heads": 16},
}
"""Arguments of the published sizes: DiT-XL/2 is `DiT(4, patch=2, classes=1000, out_channels=8, label_dropout=0.1, noise_scale=1,
**DIT_SIZES["XL"], rngs=rngs)`."""

_EPSILON = 1e-6


class DiT(nnx.Module):
    r"""Diffusion transformer: patches as tokens, every block modulated by noise level and label (adaLN-Zero).

    A block is $h + g_1\,\mathrm{attention}(m_1(h))$, then $h + g_2\,\mathrm{mlp}(m_2(h))$, with
    $m(h) = (1 + s)\,\mathrm{norm}(h) + b$; gates g, scales s and shifts b are linear in SiLU of the embedding and start at zero, so
    that a block starts as the identity. The last layer starts at zero too. `(batch, *space, image_channels)` to the same
    space, float32 out; any sides that are multiples of the patch's.
    Peebles and Xie (2023), section 3 and table 1, https://arxiv.org/abs/2212.09748.

    Arguments: `image_channels`; `patch`, one size for all axes or one for each of `dims`; `width` of a token, a multiple
    of `heads`; `depth`, the number of blocks; `mlp_ratio`, of the hidden width, rounded down, to `width`; `positions`, an
    `AbstractPositions`; `classes`, 0 for a network without labels; `dropout` of what a block adds, and `label_dropout`,
    of labels, which become the label "none" (0.1 as published, for guidance), rates that are active where keys are
    given; `noise_scale`, the factor of `c_noise` before its features, which were made for times in [0, 1000): the
    default spreads the range of about 5 of `sdelab.score.AbstractUnitInput` over that, and a published network, whose
    label is the time step, has 1; `out_channels`, by default `image_channels` (published networks have twice as many,
    the second half for the variance); `rematerialise`: what is inside a block is computed again in the backward pass;
    `dtype` of what has pixels and `param_dtype`.
    """

    def __init__(
        self,
        image_channels: int,
        *,
        patch: int | tuple[int, ...] = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float | int = 4.0,
        dims: int = 2,
        positions: AbstractPositions = SinCosPositions(),
        classes: int = 0,
        dropout: float | int = 0.0,
        label_dropout: float | int = 0.0,
        noise_scale: float | int = 200.0,
        out_channels: int | None = None,
        rematerialise: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(image_channels=image_channels, width=width, depth=depth, heads=heads)
        check_positive(noise_scale=noise_scale, mlp_ratio=mlp_ratio)
        check_dropout(dropout, label_dropout, classes)
        if width % heads:
            raise ValueError(f"heads = {heads} is not accepted; heads must divide the width, {width}.")
        out_channels = image_channels if out_channels is None else out_channels
        settings = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.image_channels, self.patch = image_channels, _patch_sizes(patch, dims)
        self.depth, self.positions, self.dtype = depth, positions, jnp.dtype(dtype)
        self._run, pixels = run_again if rematerialise else run, math.prod(self.patch)
        self.embedding = DiTEmbedding(width, classes, noise_scale=noise_scale, label_dropout=label_dropout, **settings)
        self.first = _linear(pixels * image_channels, width, **settings)
        block = functools.partial(DiTBlock, width, heads, int(mlp_ratio * width), positions, dropout, **settings)
        self.blocks = nnx.Dict({f"block{i}": block(number=i) for i in range(depth)})
        self.modulation = _modulation(width, 2 * width, **settings)
        self.last = _zero_linear(width, pixels * out_channels, **settings)

    def __call__(
        self,
        x: Float[Array, "batch *space channels"],
        c_noise: Float[Array, " batch"],
        condition: Int[Array, " batch"] | None = None,
        keys: PRNGKeys | None = None,
    ) -> Float[Array, "batch *space out"]:
        if x.ndim != len(self.patch) + 2 or x.shape[-1] != self.image_channels:
            raise ValueError(
                f"x has shape {x.shape}; this network takes (batch, *space, {self.image_channels}) with "
                f"{len(self.patch)} spatial sides."
            )
        patches = patchify(x.astype(self.dtype), self.patch)
        embedding = jax.nn.silu(self.embedding(c_noise, condition, keys))
        h = self.positions.embed(self.first(patches))
        for i in range(self.depth):
            h = self._run(self.blocks[f"block{i}"], h, embedding, keys)
        shift, scale = jnp.split(_spread(self.modulation(embedding), h), 2, axis=-1)
        return unpatchify(self.last(_modulate(layer_norm(h), shift, scale)), self.patch).astype(jnp.float32)


class DiTBlock(nnx.Module):
    """Attention and a perceptron of one hidden layer, both modulated and gated. `number` tells the dropout apart."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        positions: AbstractPositions,
        dropout: float | int,
        number: int,
        **settings,
    ):
        self.heads, self.positions, self.dropout, self.number = heads, positions, dropout, number
        self.modulation = _modulation(width, 6 * width, **settings)
        self.query_key_value = _linear(width, 3 * width, **settings)
        self.out = _linear(width, width, **settings)
        self.hidden = _linear(width, hidden, **settings)
        self.mlp_out = _linear(hidden, width, **settings)

    def __call__(self, h: Array, embedding: Array, keys: PRNGKeys | None) -> Array:
        modulation = jnp.split(_spread(self.modulation(embedding), h), 6, axis=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        mixed = self.out(self._attention(_modulate(layer_norm(h), shift1, scale1)))
        h = h + gate1 * dropout(mixed, self.dropout, keys, 2 * self.number)
        hidden = jax.nn.gelu(self.hidden(_modulate(layer_norm(h), shift2, scale2)), approximate=True)
        return h + gate2 * dropout(self.mlp_out(hidden), self.dropout, keys, 2 * self.number + 1)

    def _attention(self, h: Array) -> Array:
        query, key, value = jnp.split(self.query_key_value(h), 3, axis=-1)
        by_head = (*h.shape[:-1], self.heads, h.shape[-1] // self.heads)
        query, key = (self.positions.rotate(a.reshape(by_head)).reshape(h.shape) for a in (query, key))
        return attend(query, key, value, self.heads)


def layer_norm(h: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    """Mean 0 and variance 1 over the last axis, without parameters; statistics in float32.

    Ba et al. (2016), section 3, https://arxiv.org/abs/1607.06450.
    """
    single = h.astype(jnp.float32)
    centred = single - jnp.mean(single, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + _EPSILON)).astype(h.dtype)


def _modulate(h: Array, shift: Array, scale: Array) -> Array:
    return h * (1.0 + scale) + shift


def _spread(modulation: Float[Array, "batch width"], h: Array) -> Array:
    """One vector a sample, with axes for the grid of `h` and in its dtype."""
    return modulation.reshape(modulation.shape[0], *(1,) * (h.ndim - 2), modulation.shape[1]).astype(h.dtype)


def _linear(inputs: int, outputs: int, **settings: Any) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.xavier_uniform(), **settings)


def _modulation(inputs: int, outputs: int, *, dtype: DTypeLike, **settings: Any) -> nnx.Linear:
    return _zero_linear(inputs, outputs, dtype=at_least_single(dtype), **settings)


def _zero_linear(inputs: int, outputs: int, **settings: Any) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.zeros_init(), **settings)


def _patch_sizes(patch: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    check_dims(dims)
    sizes = (patch,) * dims if isinstance(patch, int) else tuple(patch)
    if len(sizes) != dims:
        raise ValueError(f"patch = {patch} is not accepted; patch must be one size, or one for each of {dims} axes.")
    for size in sizes:
        check_count(patch=size)
    return sizes
