import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sdelab._checks import check_count
from sdelab._typing import PRNGKeys
from sdelab.nn.layers import Embedding, at_least_single, check_rate, dropout


class MLP(nnx.Module):
    r"""Residual network for points, `(batch, dim)` to `(batch, dim)`, float32 out.

    Each block is $h + W_2\,\mathrm{silu}(W_1\,\mathrm{norm}(h))$, its norm scaled and shifted by the embedding of
    noise level and label. The last layer starts at zero. He et al. (2016), https://arxiv.org/abs/1603.05027.

    Arguments: `dim`, of a point; `width`; `depth`, the number of blocks; `classes`, 0 for a network without labels;
    `dropout`, a rate in [0, 1), active where keys are given; `dtype` of the blocks and `param_dtype`.
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int = 128,
        depth: int = 3,
        classes: int = 0,
        dropout: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_count(dim=dim, width=width, depth=depth)
        check_rate(dropout)
        settings = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.dim, self.depth, self.dtype = dim, depth, jnp.dtype(dtype)
        self.embedding = Embedding(width, classes, **settings)
        self.first = nnx.Linear(dim, width, **settings)
        self.blocks = nnx.Dict({f"block{i}": ResidualLayer(width, dropout, i, **settings) for i in range(depth)})
        self.last = nnx.Linear(width, dim, kernel_init=nnx.initializers.zeros_init(), **settings)

    def __call__(
        self,
        x: Float[Array, "batch dim"],
        c_noise: Float[Array, " batch"],
        condition: Int[Array, " batch"] | None = None,
        keys: PRNGKeys | None = None,
    ) -> Float[Array, "batch dim"]:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x has shape {x.shape}; this network takes points of shape (batch, {self.dim}).")
        embedding = self.embedding(c_noise, condition)
        h = self.first(x.astype(self.dtype))
        for i in range(self.depth):
            h = self.blocks[f"block{i}"](h, embedding, keys)
        return self.last(jax.nn.silu(h)).astype(jnp.float32)


class ResidualLayer(nnx.Module):
    """One block of `MLP`."""

    def __init__(self, width: int, dropout: float, layer: int, *, dtype, param_dtype, rngs: nnx.Rngs):
        settings = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.dropout, self.layer = dropout, layer
        self.norm = nnx.LayerNorm(width, use_bias=False, use_scale=False, **settings)
        self.modulation = nnx.Linear(width, 2 * width, **settings | {"dtype": at_least_single(dtype)})
        self.first = nnx.Linear(width, width, **settings)
        self.second = nnx.Linear(width, width, **settings)

    def __call__(self, h: Array, embedding: Array, keys: PRNGKeys | None) -> Array:
        scale, shift = jnp.split(self.modulation(embedding).astype(h.dtype), 2, axis=-1)
        inner = jax.nn.silu(self.first(self.norm(h) * (1.0 + scale) + shift))
        return h + self.second(dropout(inner, self.dropout, keys, self.layer))
