import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab.nn.flash_attention import flash_attention, formula


def attend(
    query: Float[Array, "batch *space channels"],
    key: Float[Array, "batch *space channels"],
    value: Float[Array, "batch *space channels"],
    heads: int = 1,
) -> Float[Array, "batch *space channels"]:
    r"""$\mathrm{softmax}(q k^T / \sqrt{d})\, v$ between all pixels; the `heads` take consecutive channels, d each.

    Vaswani et al. (2017), eq. 1, https://arxiv.org/abs/1706.03762.
    """
    shape = query.shape
    split = (shape[0], -1, heads, shape[-1] // heads)
    parts = [part.reshape(split) for part in (query, key, value)]
    mixed = flash_attention(*parts) if takes_flash_attention(parts[0].shape, query.dtype) else formula(*parts)
    return mixed.reshape(shape)


def takes_flash_attention(shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Whether cuDNN's flash attention can be had, of a query `(batch, pixels, heads, channels)`; jax never chooses it by itself.

    It takes 16-bit numbers, heads of a multiple of 8 channels, at most 128, or 256 from Hopper on, and an even number of pixels, on
    a CUDA device.
    """
    generation, (_, pixels, _, channels) = cuda_generation(), shape
    half = dtype in (jnp.bfloat16, jnp.float16)
    most = 256 if generation >= HOPPER else 128
    fits = channels % 8 == 0 and channels <= most and pixels % 2 == 0
    return generation > 0 and half and fits


HOPPER = 9


def cuda_generation() -> int:
    """The first part of the compute capability of the CUDA device; 0 without one."""
    if jax.default_backend() != "gpu":
        return 0
    device = jax.devices()[0]
    return int(device.compute_capability.split(".")[0]) if "cuda" in device.client.platform_version.lower() else 0
