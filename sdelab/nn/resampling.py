r"""Twice as many pixels, or half as many, through a short filter along each spatial axis; zeros outside the image.

Upsampling puts a zero after every pixel and filters, downsampling filters and keeps every second value. A filter is
given by its taps, `(1, 3, 3, 1)`, and divided by their sum; upsampling multiplies it by two along each axis. With
`(1, 1)` these are the nearest neighbour and the mean of two. Zhang (2019), section 3, https://arxiv.org/abs/1904.11486;
Karras et al. (2020), appendix B, https://arxiv.org/abs/1912.04958.

Filters work on one axis at a time, by shifted sums: a depthwise convolution is many times slower on most devices.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab.nn.convolution import Conv, add_bias, check_dims, convolve, convolve_doubled, interleave
from sdelab.nn.initialization import uniform_fan_avg

Taps = Sequence[float | int]

PLAIN = (1, 1)
"""The taps of nearest-neighbour upsampling and of average pooling."""


def is_plain(taps: Taps) -> bool:
    """Whether upsampling doubles the pixels."""
    return tuple(taps) == PLAIN


def check_taps(**arguments: Taps) -> None:
    for name, taps in arguments.items():
        if len(taps) < 2 or not np.all(np.isfinite(taps)) or np.sum(taps) == 0:
            raise ValueError(
                f"{name} = {taps!r} is not accepted; {name} must have two or more finite numbers, whose sum is not 0."
            )


def upsample(x: Float[Array, "batch *space channels"], taps: Taps = PLAIN) -> Float[Array, "batch *larger channels"]:
    """Every side doubled."""
    before, after = _split(len(taps) - 2)
    return filter_up(x, taps, padding=(before + 1, after))


def downsample(x: Float[Array, "batch *space channels"], taps: Taps = PLAIN) -> Float[Array, "batch *smaller channels"]:
    """Every side halved, rounded down."""
    return filter_down(x, taps, padding=_split(len(taps) - 2))


def upsample_convolve(
    x: Float[Array, "batch *space channels"], kernel: Float[Array, "*size channels out"], taps: Taps = PLAIN
) -> Float[Array, "batch *larger out"]:
    """Zeros between the pixels, then `kernel`, then the filter; every side is doubled.

    The filter runs first here, over the image with zeros around it: the same numbers, without a convolution of zeros.
    """
    if is_plain(taps) and kernel.shape[0] % 2:
        return convolve_doubled(x, kernel)
    before, after = _split(len(taps) - kernel.shape[0] - 1)
    reach = kernel.shape[0] - 1
    filtered = filter_up(x, taps, padding=(before + 1 + reach, after + reach))
    return convolve(filtered, kernel, padding=((0, 0),) * (x.ndim - 2))


def convolve_upsampled(
    conv: Conv, x: Float[Array, "batch *space channels"], taps: Taps
) -> Float[Array, "batch *larger out"]:
    """`conv.linear(upsample(x, taps))`, of a layer that keeps the shape."""
    return conv.linear_of_doubled(x) if is_plain(taps) else conv.linear(upsample(x, taps))


def convolve_downsample(
    x: Float[Array, "batch *space channels"], kernel: Float[Array, "*size channels out"], taps: Taps = PLAIN
) -> Float[Array, "batch *smaller out"]:
    """The filter, then `kernel` at every second pixel; every side is halved, rounded down."""
    filtered = filter_down(x, taps, factor=1, padding=_split(len(taps) + kernel.shape[0] - 3))
    return convolve(filtered, kernel, padding=((0, 0),) * (x.ndim - 2), stride=2)


def filter_up(
    x: Float[Array, "batch *space channels"], taps: Taps, *, padding: tuple[int, int], factor: int = 2
) -> Float[Array, "batch *larger channels"]:
    """`factor - 1` zeros after every pixel, `padding` zeros around each axis, the filter times `factor` an axis.

    A negative padding cuts. A side of n becomes `factor * n + sum(padding) - len(taps) + 1`.
    """
    weights = factor * np.asarray(taps, np.float64)[::-1] / np.sum(taps)
    for axis in range(1, x.ndim - 1):
        length = factor * x.shape[axis] + sum(padding) - len(taps) + 1
        phases = -(-length // factor)  # values of each phase; the last ones may be one too many
        values = []
        for phase in range(factor):
            # the taps that meet a pixel and not one of the zeros between, with the pixel's shift
            met = [j for j in range(len(weights)) if (phase + j - padding[0]) % factor == 0]
            shifts = [(phase + j - padding[0]) // factor for j in met]
            values.append(_shifted_sum(x, axis, [weights[j] for j in met], shifts, phases, 1))
        x = jax.lax.slice_in_dim(interleave(values, axis), 0, length, axis=axis)
    return x


def filter_down(
    x: Float[Array, "batch *space channels"], taps: Taps, *, padding: tuple[int, int], factor: int = 2
) -> Float[Array, "batch *smaller channels"]:
    """`padding` zeros around each axis, the filter, and every `factor`-th of its values. A negative padding cuts.

    A side of n becomes `(n + sum(padding) - len(taps)) // factor + 1`.
    """
    weights = list(np.asarray(taps, np.float64)[::-1] / np.sum(taps))
    for axis in range(1, x.ndim - 1):
        length = (x.shape[axis] + sum(padding) - len(taps)) // factor + 1
        x = _shifted_sum(x, axis, weights, [j - padding[0] for j in range(len(weights))], length, factor)
    return x


class ResamplingConv(nnx.Module):
    """`upsample_convolve` or `convolve_downsample`, a kernel of `size` along each of `dims` axes, and a bias."""

    def __init__(
        self,
        resample: Callable[[Array, Array, Taps], Array],
        in_channels: int,
        out_channels: int,
        size: int = 3,
        *,
        taps: Taps,
        dims: int = 2,
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_dims(dims)
        check_taps(taps=taps)
        self.resample, self.taps, self.dtype = resample, tuple(taps), jnp.dtype(dtype)
        init = uniform_fan_avg() if kernel_init is None else kernel_init
        self.kernel = nnx.Param(init(rngs.params(), (size,) * dims + (in_channels, out_channels), param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_channels,), param_dtype))

    def __call__(self, x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *resampled out"]:
        return add_bias(self.linear(x), self.bias[...])

    def linear(
        self, x: Float[Array, "batch *space channels"], *, scale: float = 1.0
    ) -> Float[Array, "batch *resampled out"]:
        """`scale` times it, without the bias."""
        return self.resample(x.astype(self.dtype), scale * self.kernel[...], self.taps)


def _split(total: int) -> tuple[int, int]:
    """Padding of `total` zeros; the odd one goes before."""
    return (total + 1) // 2, total // 2


def _shifted_sum(
    x: Array, axis: int, weights: Sequence[float], shifts: Sequence[int], length: int, stride: int
) -> Array:
    """`sum_k weights[k] * x[stride * i + shifts[k]]` for i < `length`, with zeros outside of x."""
    before = max(0, -min(shifts, default=0))
    after = max(0, stride * (length - 1) + max(shifts, default=0) + 1 - x.shape[axis])
    padded = jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])
    stop = stride * (length - 1) + 1 + before
    total = jnp.zeros(x.shape[:axis] + (length,) + x.shape[axis + 1 :], x.dtype)
    for weight, shift in zip(weights, shifts, strict=True):
        part = jax.lax.slice_in_dim(padded, before + shift, stop + shift, stride=stride, axis=axis)
        total = total + float(weight) * part
    return total
