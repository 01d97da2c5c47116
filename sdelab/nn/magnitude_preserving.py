r"""Operations that keep the root mean square of activations at 1, and layers whose weights have no scale.

Of independent inputs with $E[a^2] = 1$ every operation here returns outputs with $E[a^2] = 1$, whatever is learned:
weights are divided by their norm where they are used. Karras et al. (2024), section 2 and appendix B,
https://arxiv.org/abs/2312.02696.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._checks import check_count
from sdelab.nn.convolution import convolve, convolve_doubled, same

_EPSILON = 1e-4
_SILU_RMS = 0.596  # of silu(a), a ~ N(0, 1)


def normalize(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    r"""$x / (\epsilon + \lVert x \rVert / \sqrt{n})$ over the n entries along `axes`, with $\epsilon = 10^{-4}$.

    In float32, returned in the dtype of `x`.
    """
    single = x.astype(jnp.float32)
    count = math.prod(x.shape[axis] for axis in axes)
    square = jnp.sum(single**2, axis=axes, keepdims=True)
    # far below epsilon squared, and the square root has a gradient at x = 0
    norm = jnp.sqrt((square + 1e-30) / count)
    return (single / (_EPSILON + norm)).astype(x.dtype)


def pixel_norm(x: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
    """Each pixel to a root mean square of 1 over its channels.

    Karras et al. (2018), section 4.2, https://arxiv.org/abs/1710.10196.
    """
    return normalize(x, (x.ndim - 1,))


def mp_silu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """SiLU over the root mean square that it has of a standard normal. Karras et al. (2024), eq. 81."""
    return jax.nn.silu(x) / _SILU_RMS


def mp_sum(a: Float[Array, "..."], b: Float[Array, "..."], balance: float) -> Float[Array, "..."]:
    r"""$((1 - t) a + t b) / \sqrt{(1 - t)^2 + t^2}$ with t = `balance`. Karras et al. (2024), eq. 88."""
    norm = math.hypot(1.0 - balance, balance)
    return a * ((1.0 - balance) / norm) + b * (balance / norm)


def mp_cat(
    a: Float[Array, "*batch first"], b: Float[Array, "*batch second"], balance: float
) -> Float[Array, "*batch both"]:
    r"""Concatenation of channels in which b contributes as $t^2 : (1 - t)^2$ to the sum of squares, t = `balance`.

    $\sqrt{(N_a + N_b) / ((1 - t)^2 + t^2)}\, [(1 - t)\, a / \sqrt{N_a},\; t\, b / \sqrt{N_b}]$ for $N_a$ and $N_b$ channels.
    Karras et al. (2024), eq. 103.
    """
    channels = a.shape[-1], b.shape[-1]
    scale = math.sqrt(sum(channels)) / math.hypot(1.0 - balance, balance)
    factors = (1.0 - balance) * scale / math.sqrt(channels[0]), balance * scale / math.sqrt(channels[1])
    return jnp.concatenate([a * factors[0], b * factors[1]], axis=-1)


class MPConv(nnx.Module):
    r"""Convolution, without a bias, by $g\, w / \lVert w \rVert$ for each output channel: the scale of `weight` has no effect.

    Its gradient is orthogonal to the weight, so that plain updates let the weight grow and learning fade: renormalise
    with `normalize_weights` after each update. The padding keeps the shape. Karras et al. (2024), eq. 47 and 66.

    Arguments: `size` along each of `dims` axes, odd; `dims` = 0 is a linear map of the last axis, which on images
    is the 1 x 1 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int = 3,
        *,
        dims: int = 0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(in_channels=in_channels, out_channels=out_channels, size=size)
        self.size, self.dims, self.dtype = size, dims, jnp.dtype(dtype)
        shape = (size,) * dims + (in_channels, out_channels)
        self.weight = nnx.Param(jax.random.normal(rngs.params(), shape, param_dtype))

    def kernel(self, gain: Float[Array, ""] | float = 1.0) -> Float[Array, "*size in out"]:
        """The weight as it is used, float32: root mean square `gain` over the square root of the inputs' number."""
        weight = normalize_weight(self.weight[...].astype(jnp.float32))
        return weight * (gain / math.sqrt(math.prod(weight.shape[:-1])))

    def __call__(
        self, x: Float[Array, "batch *space in"], gain: Float[Array, ""] | float = 1.0
    ) -> Float[Array, "batch *space out"]:
        kernel = self.kernel(gain).astype(self.dtype)
        x = x.astype(self.dtype)
        return x @ kernel if self.dims == 0 else convolve(x, kernel, padding=same(self.size, self.dims))

    def of_doubled(self, x: Float[Array, "batch *space in"]) -> Float[Array, "batch *larger out"]:
        """The same of `x` with every pixel doubled along each axis."""
        return convolve_doubled(x.astype(self.dtype), self.kernel())  # entries are summed in float32


class MPFourier(nnx.Module):
    r"""$\sqrt 2 \cos(\omega_k c + \phi_k)$ with $\omega_k \sim N(0, (2\pi)^2)$ and $\phi_k \sim U(0, 2\pi)$; float32.

    Frequencies and phases are drawn once and not trained. They are parameters all the same, whose gradient is zero: a
    checkpoint holds them, and neither Adam nor an average moves what has no gradient (weight decay would).
    Karras et al. (2024), eq. 75.
    """

    def __init__(self, channels: int, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        check_count(channels=channels)
        turn = 2.0 * math.pi
        self.frequencies = nnx.Param(turn * jax.random.normal(rngs.params(), (channels,), param_dtype))
        self.phases = nnx.Param(turn * jax.random.uniform(rngs.params(), (channels,), param_dtype))

    def __call__(self, c: Float[Array, " batch"]) -> Float[Array, "batch channels"]:
        frequencies, phases = (
            jax.lax.stop_gradient(p[...]).astype(jnp.float32)[None, :] for p in (self.frequencies, self.phases)
        )
        return math.sqrt(2.0) * jnp.cos(c.astype(jnp.float32)[:, None] * frequencies + phases)


def normalize_weight(weight: Float[Array, "*size in out"]) -> Float[Array, "*size in out"]:
    """One weight of `MPConv`: root mean square 1 over the inputs of each output channel."""
    return normalize(weight, tuple(range(weight.ndim - 1)))


def normalize_weights(params: Any) -> Any:
    """Forced weight normalisation: the parameters with every weight of an `MPConv` at root mean square 1.

    The network's function stays as it is. To be applied once after initialisation and after every update, as the trainer does, so that
    the learning rate is the size of a step on the sphere and nothing else. `params` is the nested dict of
    `sdelab.nn.as_function`; weights are the leaves named `weight`. Karras et al. (2024), config E and eq. 66.
    """

    def visit(path: Any, leaf: Array) -> Array:
        return normalize_weight(leaf) if getattr(path[-1], "key", None) == "weight" else leaf

    return jax.tree.map_with_path(visit, params)
