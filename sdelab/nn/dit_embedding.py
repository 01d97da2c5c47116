"""Noise level and label of a diffusion transformer."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sdelab._typing import PRNGKeys
from sdelab.nn.edm_embedding import angles, cosines_sines
from sdelab.nn.label_dropout import drop_labels
from sdelab.nn.layers import at_least_single, check_labels, label_rows

_FEATURES = 256
_STD = 0.02


class DiTEmbedding(nnx.Module):
    """The sum of an embedded noise level and, where `classes` > 0, an embedded label, `(batch, width)`.

    The last row of the table of labels stands for no label: for a negative one, and for `condition=None`. Errors: a
    label given to a network without classes; a label >= `classes` under `jit`, where it cannot raise, gives NaN.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        noise_scale: float | int,
        label_dropout: float | int,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        normal = nnx.initializers.normal(_STD)
        self.dtype = at_least_single(dtype)
        settings = {"kernel_init": normal, "dtype": self.dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.classes, self.noise_scale, self.label_dropout = classes, noise_scale, label_dropout
        self.first = nnx.Linear(_FEATURES, width, **settings)
        self.second = nnx.Linear(width, width, **settings)
        if classes > 0:
            self.label = nnx.Param(normal(rngs.params(), (classes + 1, width), param_dtype))

    def __call__(
        self, c_noise: Float[Array, " batch"], condition: Int[Array, " batch"] | None, keys: PRNGKeys | None
    ) -> Float[Array, "batch width"]:
        features = cosines_sines(angles(self.noise_scale * c_noise, _FEATURES // 2, _FEATURES // 2))
        h = self.second(jax.nn.silu(self.first(features.astype(self.dtype))))
        if condition is not None:
            check_labels(condition, self.classes)
            return h + self._rows(drop_labels(condition, self.label_dropout, keys)).astype(self.dtype)
        if self.classes > 0:
            return h + self.label[-1].astype(self.dtype)[None, :]
        return h

    def _rows(self, condition: Int[Array, " batch"]) -> Float[Array, "batch width"]:
        table = self.label[...]
        return jnp.where((condition < 0)[:, None], table[-1][None, :], label_rows(table[:-1], condition))
