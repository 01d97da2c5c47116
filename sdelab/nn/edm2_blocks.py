"""Blocks of EDM2's U-Net: they keep a root mean square of 1, and the encoder's start from it."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from sdelab._typing import PRNGKeys
from sdelab.nn.attention import attend, heads_of
from sdelab.nn.layers import at_least_single, dropout
from sdelab.nn.magnitude_preserving import MPConv, mp_silu, mp_sum, normalize, pixel_norm
from sdelab.nn.resampling import upsample

LARGEST = 256.0  # activations are clipped there: a safeguard for half precision


class EncoderBlock(nnx.Module):
    """The 1 x 1 convolution that changes the number of channels, a pixel norm, the residual branch, attention.

    `balances` are the shares of the branch and of the attention in what they are added to.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        attention: bool,
        head_size: int,
        dims: int,
        balances: tuple[float | int, float | int],
        number: int,
        rate: float | int,
        **settings,
    ):
        self.balances = balances
        self.skip = MPConv(inputs, outputs, **settings) if inputs != outputs else None
        self.residual = ResidualBranch(outputs, outputs, embedding, dims, number, rate, **settings)
        self.attention = _attention(outputs, head_size, **settings) if attention else None

    def __call__(self, h: Array, embedding: Array, keys: PRNGKeys | None) -> Array:
        h = pixel_norm(h if self.skip is None else self.skip(h))
        h = mp_sum(h, self.residual(h, embedding, keys), self.balances[0])
        return _attend_and_clip(h, self.attention, self.balances[1])


class DecoderBlock(nnx.Module):
    """The residual branch, added to the input or to its 1 x 1 convolution, and attention.

    With `up` it is of the input with every pixel doubled. SiLU and the map of channels are the same before, on a quarter of
    the pixels, and the branch's first convolution needs no doubled image.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        attention: bool,
        head_size: int,
        dims: int,
        balances: tuple[float | int, float | int],
        number: int,
        rate: float | int,
        up: bool = False,
        **settings,
    ):
        self.up, self.balances = up, balances
        self.skip = MPConv(inputs, outputs, **settings) if inputs != outputs else None
        self.residual = ResidualBranch(inputs, outputs, embedding, dims, number, rate, **settings)
        self.attention = _attention(outputs, head_size, **settings) if attention else None

    def __call__(self, h: Array, embedding: Array, keys: PRNGKeys | None) -> Array:
        skipped = h if self.skip is None else self.skip(h)
        skipped = upsample(skipped) if self.up else skipped
        h = mp_sum(skipped, self.residual(h, embedding, keys, doubled=self.up), self.balances[0])
        return _attend_and_clip(h, self.attention, self.balances[1])


class ResidualBranch(nnx.Module):
    r"""$C_1\,\mathrm{silu}((1 + g L e)\, C_0\,\mathrm{silu}(h))$ with 3 x 3 convolutions, e the embedding and g a gain from 0.

    `number` tells the dropout of the blocks apart. Karras et al. (2024), figure 21, https://arxiv.org/abs/2312.02696.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int, dims: int, number: int, rate: float | int, **settings
    ):
        self.number, self.rate = number, rate
        self.conv0 = MPConv(inputs, outputs, 3, dims=dims, **settings)
        self.modulation = MPConv(embedding, outputs, **settings | {"dtype": at_least_single(settings["dtype"])})
        self.gain = nnx.Param(jnp.zeros((), settings["param_dtype"]))
        self.conv1 = MPConv(outputs, outputs, 3, dims=dims, **settings)

    def __call__(self, h: Array, embedding: Array, keys: PRNGKeys | None, *, doubled: bool = False) -> Array:
        h = self.conv0.of_doubled(mp_silu(h)) if doubled else self.conv0(mp_silu(h))
        scale = (1.0 + self.modulation(embedding, self.gain[...].astype(jnp.float32))).astype(h.dtype)
        h = mp_silu(h * scale.reshape(h.shape[0], *(1,) * (h.ndim - 2), h.shape[-1]))
        return self.conv1(dropout(h, self.rate, keys, self.number))


class CosineAttention(nnx.Module):
    """Attention between all pixels whose queries, keys and values have a root mean square of 1 in each head.

    An average of values that differ is smaller than they are: attention alone does not keep the magnitude.
    Karras et al. (2024), figure 21, https://arxiv.org/abs/2312.02696.
    """

    def __init__(self, channels: int, heads: int, **settings):
        self.heads = heads
        self.query_key_value = MPConv(channels, 3 * channels, **settings)
        self.out = MPConv(channels, channels, **settings)

    def __call__(self, h: Array) -> Array:
        # as published: within a head, the three take turns
        projected = self.query_key_value(h).reshape(*h.shape[:-1], self.heads, -1, 3)
        projected = normalize(projected, (projected.ndim - 2,))
        query, key, value = (projected[..., i].reshape(h.shape) for i in range(3))
        return self.out(attend(query, key, value, self.heads))


def _attention(channels: int, head_size: int, **settings) -> CosineAttention | None:
    heads = heads_of(head_size, None, channels)
    return CosineAttention(channels, heads, **settings) if heads else None


def _attend_and_clip(h: Array, attention: CosineAttention | None, balance: float | int) -> Array:
    if attention is not None:
        h = mp_sum(h, attention(h), balance)
    return jnp.clip(h, -LARGEST, LARGEST)
