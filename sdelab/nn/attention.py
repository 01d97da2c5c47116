import jax
from jaxtyping import Array, Float


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
    with jax.numpy_dtype_promotion("standard"):  # its softmax of bfloat16 is in float32
        mixed = jax.nn.dot_product_attention(query.reshape(split), key.reshape(split), value.reshape(split))
    return mixed.reshape(shape)
