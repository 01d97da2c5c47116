"""Convolutions in one, two or three spatial dimensions, channels last."""

import itertools
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
    """Cross-correlation of `x` with `kernel`, every `stride`-th of its values, in the dtype of `x`."""
    axes = _AXES[: x.ndim - 2]
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride,) * len(axes),
        tuple(padding),
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


def same(size: int, dims: int) -> Padding:
    """The padding with which a kernel of odd `size` keeps the shape."""
    return (((size - 1) // 2, size // 2),) * dims


def convolve_doubled(
    x: Float[Array, "batch *space channels"], kernel: Float[Array, "*size channels out"]
) -> Float[Array, "batch *larger out"]:
    r"""`convolve` of `x` with every pixel doubled along each axis, padded by `same`, without the doubled image.

    Pixel $2i + a$ of the result, $a \in \{0, 1\}$, meets pixel $i + \lfloor (a + k - p) / 2 \rfloor$ of `x` in entry k of
    the kernel, with p zeros before. Entries that meet the same pixel are summed: for each phase a there is one short
    kernel, $(k_0, k_1 + k_2)$ and $(k_0 + k_1, k_2)$ for a kernel of 3, and 4/9 of the operations in two dimensions.

    One convolution a phase: all phases as channels of one are as fast forwards, but far slower backwards on a CPU.
    """
    dims = x.ndim - 2
    images = {phase: _phase(x, kernel, phase) for phase in itertools.product((0, 1), repeat=dims)}
    for axis in reversed(range(dims)):
        phases = itertools.product((0, 1), repeat=axis)
        images = {phase: interleave([images[*phase, 0], images[*phase, 1]], axis + 1) for phase in phases}
    return images[()]


def _phase(x: Array, kernel: Array, phase: Sequence[int]) -> Array:
    """The pixels `2 i + phase` of the convolution of the doubled image."""
    padding = []
    for axis, a in enumerate(phase):
        size = kernel.shape[axis]
        met = [(a + k - (size - 1) // 2) // 2 for k in range(size)]
        entries = jnp.split(kernel, size, axis=axis)
        sums = [sum(e for e, m in zip(entries, met, strict=True) if m == o) for o in range(met[0], met[-1] + 1)]
        kernel = jnp.concatenate(sums, axis=axis)
        padding.append((-met[0], met[-1]))
    return convolve(x, kernel, padding=padding)


def interleave(values: Sequence[Array], axis: int) -> Array:
    """The first entries of all along `axis`, then the second ones, and so on."""
    shape = values[0].shape
    return jnp.stack(values, axis + 1).reshape(shape[:axis] + (len(values) * shape[axis],) + shape[axis + 1 :])


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

    def __call__(self, x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *smaller out"]:
        return add_bias(self.linear(x), self.bias[...])

    def linear(
        self, x: Float[Array, "batch *space channels"], *, scale: float = 1.0
    ) -> Float[Array, "batch *smaller out"]:
        """`scale` times the convolution, without the bias, which the norm behind it may add at no cost: the `offset` of `GroupNorm`.

        The kernel is scaled before it meets the image: that is read less often, and what comes back to it is the
        convolution's own.
        """
        kernel = scale * self.kernel[...]
        return convolve(x.astype(self.dtype), kernel, padding=self.padding, stride=self.stride)

    def linear_of_doubled(self, x: Float[Array, "batch *space channels"]) -> Float[Array, "batch *larger out"]:
        """The same of `x` with every pixel doubled along each axis; the layer keeps the shape."""
        if self.stride != 1 or self.padding != same(self.kernel.shape[0], x.ndim - 2):
            raise ValueError(
                f"stride = {self.stride} with padding = {self.padding} is not accepted; of an image with doubled pixels "
                "there is only the convolution that keeps the shape."
            )
        return convolve_doubled(x.astype(self.dtype), self.kernel[...])


def add_bias(x: Float[Array, "batch *space channels"], bias: Float[Array, " channels"]) -> Array:
    """The sum over the last axis, in the dtype of `x`."""
    return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
