"""The residual block of EDM's networks, and what tells the block of one network from that of the other."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._typing import PRNGKeys
from sdelab.nn.attention import attend
from sdelab.nn.convolution import Conv
from sdelab.nn.features import Features, convolved, map_channels, offset_of
from sdelab.nn.layers import GroupNorm, at_least_single, dropout
from sdelab.nn.resampling import Taps, convolve_upsampled, upsample

Resample: TypeAlias = Callable[[Array, Taps], Array]
"""`upsample` or `downsample`."""


def group_norm(channels: int, epsilon: float, *, param_dtype: DTypeLike) -> GroupNorm:
    """In 32 groups, or fewer so that a group has four channels at least."""
    return GroupNorm(channels, groups=min(32, channels // 4), epsilon=epsilon, param_dtype=param_dtype)


def shift(norm: GroupNorm, h: Array, bias: Array, offset: Array) -> Array:
    r"""$\mathrm{norm}(h + b + o)$, the embedding added before the norm. Ho et al. (2020), https://arxiv.org/abs/2006.11239."""
    return norm(h, offset=bias + offset.astype(bias.dtype))


def scale_shift(norm: GroupNorm, h: Array, bias: Array, modulation: Array) -> Array:
    r"""$(1 + s)\,\mathrm{norm}(h + b) + o$. Dhariwal and Nichol (2021), section 3, https://arxiv.org/abs/2105.05233."""
    return norm(h, modulation, offset=bias)


WIDTHS = {shift: 1, scale_shift: 2}
"""Numbers of the embedding for each channel."""


@dataclasses.dataclass(frozen=True)
class BlockStyle:
    """What the blocks of a network have in common.

    Fields: `modulate`, `shift` or `scale_shift`; `skip_scale`, of both sums; `epsilon`, of the norms; `taps`, of the
    resampling; `project_resampled`, whether the shortcut has a linear map wherever it is resampled, or only where the
    channels change; `attention_up`, the number of blocks of a level that attend on the way up, counted from its last;
    `heads`, of so many channels; `kernel_init`, `last_init` of what ends a residual branch, `attention_init` of
    query, key and value; `bias_init` of so many inputs.
    """

    modulate: Callable[[GroupNorm, Array, Array, Array], Array]
    skip_scale: float
    epsilon: float
    taps: Taps
    project_resampled: bool
    attention_up: int
    heads: Callable[[int], int]
    kernel_init: nnx.Initializer
    last_init: nnx.Initializer
    attention_init: nnx.Initializer
    bias_init: Callable[[int], nnx.Initializer]


class EDMBlock(nnx.Module):
    r"""$h = s\,(R(x) + C_1\,\mathrm{silu}(\mathrm{norm}_e(C_0\,R(\mathrm{silu}(\mathrm{norm}(x))))))$, then attention.

    With 3 x 3 convolutions $C$, the resampling $R$ and a norm that the embedding $e$ modulates; where asked, $h$
    becomes $s\,(h + \mathrm{attention}(\mathrm{norm}(h)))$. Karras et al. (2022),
    https://arxiv.org/abs/2206.00364, after BigGAN: Brock et al. (2019), https://arxiv.org/abs/1809.11096.

    Arguments: `embedding_channels`; `style`, see `BlockStyle`; `resample`, `upsample`, `downsample` or None; `heads`, 0
    for no attention; `dropout`, a rate, and `number`, which tells the dropout of the blocks apart.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        style: BlockStyle,
        *,
        resample: Resample | None = None,
        heads: int = 0,
        dropout: float | int = 0.0,
        number: int = 0,
        dims: int = 2,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        settings: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        ordinary = {"kernel_init": style.kernel_init, **settings}
        self.resample, self.taps, self.modulate = resample, tuple(style.taps), style.modulate
        self.skip_scale, self.heads, self.dropout, self.number = style.skip_scale, heads, dropout, number
        self.norm0 = group_norm(in_channels, style.epsilon, param_dtype=param_dtype)
        bias_init = style.bias_init(in_channels * 3**dims)
        self.conv0 = Conv(in_channels, out_channels, dims=dims, bias_init=bias_init, **ordinary)
        width = WIDTHS[style.modulate] * out_channels
        bias_init = style.bias_init(embedding_channels)
        single = ordinary | {"dtype": at_least_single(dtype)}
        self.modulation = nnx.Linear(embedding_channels, width, bias_init=bias_init, **single)
        self.norm1 = group_norm(out_channels, style.epsilon, param_dtype=param_dtype)
        self.conv1 = Conv(out_channels, out_channels, dims=dims, kernel_init=style.last_init, **settings)
        linear_skip = in_channels != out_channels or (resample is not None and style.project_resampled)
        bias_init = style.bias_init(in_channels)
        self.skip = nnx.Linear(in_channels, out_channels, bias_init=bias_init, **ordinary) if linear_skip else None
        self.attention = EDMAttention(out_channels, heads, style, **settings) if heads else None

    def __call__(self, x: Features, embedding: Float[Array, "batch width"], keys: PRNGKeys | None) -> Features:
        h = self._first(jax.nn.silu(x.normalised(self.norm0)))
        h = jax.nn.silu(self.modulate(self.norm1, h, offset_of(self.conv0.bias), self.modulation(embedding)))
        h = convolved(self.conv1, dropout(h, self.dropout, keys, self.number))
        out = h.plus(self._shortcut(x)).scaled(self.skip_scale)
        return out if self.attention is None else out.plus(self.attention(out)).scaled(self.skip_scale)

    def _first(self, h: Array) -> Array:
        """Without the bias, which is the norm's."""
        if self.resample is upsample:
            return convolve_upsampled(self.conv0, h, self.taps)
        return self.conv0.linear(self._resample(h))

    def _shortcut(self, x: Features) -> Features:
        """The map of the channels is taken at the lower of the two resolutions."""
        x = x if self.resample is None else x.before(self.taps)
        if self.resample is upsample and self.skip is not None:
            x = map_channels(self.skip, [x])
        x = Features(self._resample(x.image), x.offset)
        return x if self.resample is upsample or self.skip is None else map_channels(self.skip, [x])

    def _resample(self, h: Array) -> Array:
        """As published the taps meet the pixels in their order on the way down, and reversed, as a filter's do, on the way up."""
        if self.resample is None:
            return h
        return self.resample(h, self.taps if self.resample is upsample else self.taps[::-1])


class EDMAttention(nnx.Module):
    """Norm, query, key and value by one linear map, attention between all pixels, and a linear map."""

    def __init__(self, channels: int, heads: int, style: BlockStyle, *, dtype, param_dtype, rngs: nnx.Rngs):
        settings: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.heads = heads
        self.norm = group_norm(channels, style.epsilon, param_dtype=param_dtype)
        self.query_key_value = nnx.Linear(
            channels, 3 * channels, kernel_init=style.attention_init, bias_init=style.bias_init(channels), **settings
        )
        self.out = nnx.Linear(channels, channels, kernel_init=style.last_init, **settings)

    def __call__(self, h: Features) -> Features:
        query, key, value = jnp.split(self.query_key_value(h.normalised(self.norm)), 3, axis=-1)
        return map_channels(self.out, [Features.of(attend(query, key, value, self.heads))])
