"""Convolutions in one, two or three spatial dimensions, channels last."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._checks import check_count
from sdelab.nn.initialization import uniform_fan_avg

_AXES = "DHW"

Padding = Sequence[tuple[int, int]]
"""Zeros before and after, for each spatial axis."""


def check_dims(dims: int) -> None:
    if dims not in (1, 2, 3):
        raise ValueError(f"dims = {dims!r} is not accepted; dims must be 1, 2 or 3, the number of spatial dimensions.")


def convolve(
    x: Float[Array, "batch *space channels"],
    kernel: Float[Array, "*size channels out"],
    *,
    padding: Padding,
    stride: int = 1,
) -> Float[Array, "batch *smaller out"]:
    """Cross-correlation of `x` with `kernel`, every `stride`-th of its values; both have the same dtype."""
    axes = _AXES[: x.ndim - 2]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * len(axes),
        tuple(padding),
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


def same(size: int, dims: int) -> Padding:
    """The padding with which a kernel of odd `size` keeps the shape."""
    return (((size - 1) // 2, size // 2),) * dims


class Conv(nnx.Module):
    """Convolution with a kernel of `size` along each of `dims` spatial axes, and a bias.

    Arguments: `padding`, for each spatial axis the zeros before and after; by default what keeps the shape at stride 1.
    DDPM pads its strided convolutions with `((0, 1), (0, 1))`. `kernel_init` takes the shape `(*size, in, out)`,
    `bias_init` takes `(out,)`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int = 3,
        *,
        dims: int = 2,
        stride: int = 1,
        padding: Padding | None = None,
        kernel_init: nnx.Initializer | None = None,
        bias_init: nnx.Initializer = nnx.initializers.zeros_init(),
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_dims(dims)
        check_count(in_channels=in_channels, out_channels=out_channels, size=size, stride=stride)
        self.stride, self.dtype = stride, jnp.dtype(dtype)
        self.padding = same(size, dims) if padding is None else tuple(padding)
        init = uniform_fan_avg() if kernel_init is None else kernel_init
        self.kernel = nnx.Param(init(rngs.params(), (size,) * dims + (in_channels, out_channels), param_dtype))
        self.bias = nnx.Param(bias_init(rngs.params(), (out_channels,), param_dtype))

    def __call__(
        self,
        x: Float[Array, "batch *space channels"],
        *,
        scale: float = 1.0,
        shift: Float[Array, "batch out"] | None = None,
    ) -> Float[Array, "batch *smaller out"]:
        """`scale` times the convolution, plus `scale` times the bias and a `shift` for each sample.

        The parameters are scaled, and bias and shift are summed, before they meet the image: it is read less often,
        and what comes back to it is the convolution's own.
        """
        kernel, bias = ((scale * p[...]).astype(self.dtype) for p in (self.kernel, self.bias))
        out = convolve(x.astype(self.dtype), kernel, padding=self.padding, stride=self.stride)
        if shift is None:
            return add_bias(out, bias)
        return out + (shift.astype(self.dtype) + bias[None, :]).reshape((-1,) + (1,) * (x.ndim - 2) + bias.shape)


def add_bias(x: Float[Array, "batch *space channels"], bias: Float[Array, " channels"]) -> Array:
    """The sum over the last axis, in the dtype of `x`."""
    return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
