import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sdelab._checks import check_count
from sdelab._typing import PRNGKeys
from sdelab.nn.layers import Embedding, GroupNorm, at_least_single, check_rate, dropout


class UNet(nnx.Module):
    r"""Compact U-Net for images, `(batch, height, width, channels)` to the same shape, float32 out.

    Residual blocks with group normalisation that noise level and label scale and shift, attention at the lowest
    resolution, and what went down added back on the way up, $(h + h_{down})/\sqrt 2$: half the cost of concatenating.
    Between the resolutions 2 x 2 patches are merged and split by one linear map. The last convolution starts at zero.
    Ronneberger et al. (2015), https://arxiv.org/abs/1505.04597; Dhariwal and Nichol (2021), section 3,
    https://arxiv.org/abs/2105.05233.

    Arguments: `image_channels`; `channels`, at full resolution; `multipliers`, of `channels` at each resolution, the
    image halved from one to the next (its sides must allow that); `blocks`, per resolution on each way; `head_size`
    of the attention, which divides the lowest level's channels; `classes`, 0 for a network without labels; `dropout`,
    a rate in [0, 1), active where keys are given; `dtype` of what has pixels and `param_dtype`.
    """

    def __init__(
        self,
        image_channels: int,
        *,
        channels: int = 32,
        multipliers: tuple[int, ...] = (1, 3),
        blocks: int = 1,
        head_size: int = 32,
        classes: int = 0,
        dropout: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(image_channels=image_channels, channels=channels, blocks=blocks, head_size=head_size)
        check_rate(dropout)
        widths = _widths(channels, multipliers, head_size)
        settings = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.image_channels, self.steps, self.dtype = image_channels, len(widths) - 1, jnp.dtype(dtype)
        self.embedding = Embedding(4 * channels, classes, **settings)
        self.first = nnx.Conv(image_channels, widths[0], (3, 3), **settings)
        numbers = itertools.count()

        def level(width: int) -> Level:
            return Level(width, 4 * channels, dropout, [next(numbers) for _ in range(blocks)], **settings)

        pairs = list(enumerate(itertools.pairwise(widths)))
        self.down = nnx.Dict({f"level{i}": level(upper) for i, (upper, _) in pairs})
        self.merge = nnx.Dict({f"level{i}": nnx.Linear(4 * a, b, **settings) for i, (a, b) in pairs})
        self.lowest = nnx.Dict({"before": level(widths[-1]), "after": level(widths[-1])})
        self.attention = Attention(widths[-1], head_size, **settings)
        self.split = nnx.Dict({f"level{i}": nnx.Linear(b, 4 * a, **settings) for i, (a, b) in pairs})
        self.up = nnx.Dict({f"level{i}": level(upper) for i, (upper, _) in pairs})
        self.norm = GroupNorm(widths[0], param_dtype=param_dtype)
        self.last = nnx.Conv(widths[0], image_channels, (3, 3), kernel_init=nnx.initializers.zeros_init(), **settings)

    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        c_noise: Float[Array, " batch"],
        condition: Int[Array, " batch"] | None = None,
        keys: PRNGKeys | None = None,
    ) -> Float[Array, "batch height width channels"]:
        self._check(x)
        embedding = self.embedding(c_noise, condition)
        h, skips = self.first(x.astype(self.dtype)), []
        for i in range(self.steps):
            h = self.down[f"level{i}"](h, embedding, keys)
            skips.append(h)
            h = self.merge[f"level{i}"](_merge_patches(h))
        h = self.lowest["before"](h, embedding, keys)
        h = self.attention(h)
        h = self.lowest["after"](h, embedding, keys)
        for i in reversed(range(self.steps)):
            h = _split_patches(self.split[f"level{i}"](h))
            h = self.up[f"level{i}"]((h + skips[i]) * 0.5**0.5, embedding, keys)
        return self.last(jax.nn.silu(self.norm(h))).astype(jnp.float32)

    def _check(self, x: Array) -> None:
        unit = 2**self.steps
        if x.ndim != 4 or x.shape[3] != self.image_channels or x.shape[1] % unit or x.shape[2] % unit:
            raise ValueError(
                f"x has shape {x.shape}; this network takes images (batch, height, width, {self.image_channels}) "
                f"whose sides are multiples of {unit}."
            )


class Level(nnx.Module):
    """The residual blocks of one resolution, on one way."""

    def __init__(self, width: int, embedding: int, dropout: float, numbers: list[int], **settings):
        self.count = len(numbers)
        self.blocks = nnx.Dict(
            {f"block{i}": ResidualBlock(width, embedding, dropout, n, **settings) for i, n in enumerate(numbers)}
        )

    def __call__(self, h: Array, embedding: Array, keys: PRNGKeys | None) -> Array:
        for i in range(self.count):
            h = self.blocks[f"block{i}"](h, embedding, keys)
        return h


class ResidualBlock(nnx.Module):
    r"""$h + C_2\,\mathrm{silu}(\mathrm{norm}_e(C_1\,\mathrm{silu}(\mathrm{norm}(h))))$ with 3 x 3 convolutions.

    The second norm is scaled and shifted by the embedding $e$; $C_2$ starts at zero, so that a block starts as the
    identity. `number` tells the dropout of the blocks apart.
    """

    def __init__(self, width: int, embedding: int, dropout: float, number: int, *, dtype, param_dtype, rngs: nnx.Rngs):
        settings = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.dropout, self.number = dropout, number
        self.norm1 = GroupNorm(width, param_dtype=param_dtype)
        self.conv1 = nnx.Conv(width, width, (3, 3), **settings)
        self.modulation = nnx.Linear(embedding, 2 * width, **settings | {"dtype": at_least_single(dtype)})
        self.norm2 = GroupNorm(width, param_dtype=param_dtype)
        self.conv2 = nnx.Conv(width, width, (3, 3), kernel_init=nnx.initializers.zeros_init(), **settings)

    def __call__(self, h: Array, embedding: Array, keys: PRNGKeys | None) -> Array:
        inner = self.conv1(jax.nn.silu(self.norm1(h)))
        inner = jax.nn.silu(self.norm2(inner, self.modulation(embedding)))
        return h + self.conv2(dropout(inner, self.dropout, keys, self.number))


class Attention(nnx.Module):
    """Multi-head self-attention between all pixels, added to its input; starts as the identity.

    Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762.
    """

    def __init__(self, width: int, head_size: int, *, dtype, param_dtype, rngs: nnx.Rngs):
        settings = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.head_size = head_size
        self.norm = GroupNorm(width, param_dtype=param_dtype)
        self.query_key_value = nnx.Linear(width, 3 * width, **settings)
        self.out = nnx.Linear(width, width, kernel_init=nnx.initializers.zeros_init(), **settings)

    def __call__(self, h: Array) -> Array:
        batch, height, width, channels = h.shape
        projected = self.query_key_value(self.norm(h)).reshape(batch, height * width, 3, -1, self.head_size)
        query, key, value = (projected[:, :, i] for i in range(3))
        mixed = jax.nn.dot_product_attention(query, key, value)
        return h + self.out(mixed.reshape(batch, height, width, channels))


def _widths(channels: int, multipliers: tuple[int, ...], head_size: int) -> list[int]:
    if not multipliers:
        raise ValueError("multipliers = () is not accepted; multipliers must name at least one resolution.")
    for multiplier in multipliers:
        check_count(multipliers=multiplier)
    widths = [channels * multiplier for multiplier in multipliers]
    if widths[-1] % head_size:
        raise ValueError(
            f"head_size = {head_size} is not accepted; head_size must divide the {widths[-1]} channels of the "
            "lowest resolution."
        )
    return widths


def _merge_patches(h: Array) -> Array:
    batch, height, width, channels = h.shape
    patches = h.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def _split_patches(h: Array) -> Array:
    batch, height, width, channels = h.shape
    patches = h.reshape(batch, height, width, 2, 2, channels // 4)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
