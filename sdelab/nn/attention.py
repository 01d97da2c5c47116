from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MOST_CHANNELS = 128  # of a head, that cuDNN's flash attention takes on every GPU that has it


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
    with jax.numpy_dtype_promotion("standard"):  # its softmax of bfloat16 is in float32
        mixed = jax.nn.dot_product_attention(*parts, implementation=implementation(parts[0]))
    return mixed.reshape(shape)


def implementation(query: Float[Array, "batch pixels heads channels"]) -> Literal["cudnn"] | None:
    """cuDNN's flash attention where it can be had; jax never chooses it by itself.

    It takes 16-bit numbers, heads of a multiple of 8 channels and at most 128, and an even number of pixels, on a CUDA device.
    """
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    fits = query.shape[3] % 8 == 0 and query.shape[3] <= MOST_CHANNELS and query.shape[1] % 2 == 0
    return "cudnn" if half and fits and _on_cuda() else None


def _on_cuda() -> bool:
    return jax.default_backend() == "gpu" and "cuda" in jax.devices()[0].client.platform_version.lower()
