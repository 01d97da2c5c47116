"""Embeddings of the noise level, as published."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._checks import check_count, check_positive


def positional_embedding(
    c_noise: Float[Array, " batch"], width: int, *, max_period: float = 10_000.0
) -> Float[Array, "batch width"]:
    r"""$[\sin(\omega_k c), \cos(\omega_k c)]$ with $\omega_k = P^{-k/(K-1)}$, k < K = `width`/2, P = `max_period`.

    In float32 whatever the network computes in. An odd `width` ends in a zero. Ho et al. (2020), section 4,
    https://arxiv.org/abs/2006.11239: of Vaswani et al. (2017), with the last frequency at 1/P exactly.
    """
    half = width // 2
    frequencies = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-math.log(max_period) / (half - 1)))
    angles = c_noise.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.pad(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1), ((0, 0), (0, width % 2)))


class GaussianFourier(nnx.Module):
    r"""$[\sin(2 \pi w_k c), \cos(2 \pi w_k c)]$ with random frequencies $w_k \sim N(0, \mathrm{scale}^2)$.

    The frequencies are drawn once and not trained. They are a parameter all the same, whose gradient is zero: a
    checkpoint holds them, and neither Adam nor an average moves what has no gradient (weight decay would).
    Tancik et al. (2020), https://arxiv.org/abs/2006.10739; Song et al. (2021), appendix H,
    https://arxiv.org/abs/2011.13456.

    Arguments: `width`, an even number; `scale` > 0, in cycles per unit of c.
    """

    def __init__(self, width: int, scale: float | int = 16.0, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        check_count(width=width)
        check_positive(scale=scale)
        if width % 2:
            raise ValueError(f"width = {width} is not accepted; width must be even: sines and cosines.")
        self.frequencies = nnx.Param(scale * jax.random.normal(rngs.params(), (width // 2,), param_dtype))

    def __call__(self, c: Float[Array, " batch"]) -> Float[Array, "batch width"]:
        frequencies = jax.lax.stop_gradient(self.frequencies[...]).astype(jnp.float32)
        angles = c.astype(jnp.float32)[:, None] * frequencies[None, :] * (2.0 * math.pi)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
