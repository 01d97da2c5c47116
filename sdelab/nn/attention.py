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


def heads_of(head_size: int, heads: int | None, channels: int) -> int:
    """How many heads `channels` have: `heads`, or without a number as many as there is room for of about `head_size`, 0 below it.

    Errors: heads that do not divide the channels.
    """
    count = channels // head_size if heads is None else heads
    if count and channels % count:
        given = f"head_size = {head_size}" if heads is None else f"heads = {heads}"
        raise ValueError(
            f"{given} is not accepted; its {count} heads must divide the {channels} channels of a level that attends."
        )
    return count


def takes_flash_attention(shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Whether cuDNN's flash attention can be had, of a query `(batch, pixels, heads, channels)`; jax never chooses it by itself.

    It takes 16-bit numbers, heads of a multiple of 8 channels, and an even number of pixels, on a CUDA device. Heads of more than
    128 channels, which it takes on new chips only, are left to XLA, whose backward pass is faster there
    (`experiments/train_step/README.md`).
    """
    _, pixels, _, channels = shape
    half = dtype in (jnp.bfloat16, jnp.float16)
    return has_cuda() and half and channels % 8 == 0 and channels <= 128 and pixels % 2 == 0


def has_cuda() -> bool:
    """Whether the default device is NVIDIA's."""
    return jax.default_backend() == "gpu" and "cuda" in jax.devices()[0].client.platform_version.lower()
