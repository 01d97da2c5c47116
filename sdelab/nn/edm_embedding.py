"""How EDM's networks embed the noise level, the class and the augmentation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sdelab._checks import check_unit_interval, unknown_name
from sdelab._typing import PRNGKeys
from sdelab.nn.conditioning import Condition, read_condition
from sdelab.nn.initialization import uniform_bias, uniform_fan_avg, uniform_fan_in
from sdelab.nn.label_dropout import drop_labels
from sdelab.nn.layers import at_least_single

KINDS = ("fourier", "positional")


class SongEmbedding(nnx.Module):
    """Of `SongUNet`: noise level, class and augmentation to one vector of size `width`, after its activation.

    The label's row of weights, times the square root of the number of classes, goes through a linear map and is added
    to the `features` of the noise level; so is the augmentation's.
    """

    def __init__(
        self,
        kind: str,
        features: int,
        width: int,
        *,
        classes: int,
        augmentations: int,
        label_dropout: float | int,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        if kind not in KINDS:
            raise unknown_name("embedding", kind, KINDS)
        check_unit_interval(label_dropout=label_dropout)
        self.dtype = at_least_single(dtype)
        settings: dict[str, Any] = {
            "kernel_init": uniform_fan_avg(),
            "dtype": self.dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.features, self.classes, self.augmentations = features, classes, augmentations
        self.label_dropout = label_dropout
        self.fourier = FourierAngles(features // 2, param_dtype=param_dtype, rngs=rngs) if kind == "fourier" else None
        self.label = nnx.Linear(classes, features, **settings) if classes else None
        self.augment = nnx.Linear(augmentations, features, use_bias=False, **settings) if augmentations else None
        self.first = nnx.Linear(features, width, **settings)
        self.second = nnx.Linear(width, width, **settings)

    def __call__(
        self, c_noise: Float[Array, " batch"], condition: Condition | None, keys: PRNGKeys | None
    ) -> Float[Array, "batch width"]:
        label, augment = read_condition(condition, self.classes, self.augmentations, c_noise.shape[0])
        half = self.features // 2
        angle = angles(c_noise, half, half - 1) if self.fourier is None else self.fourier(c_noise)
        h = sines_cosines(angle).astype(self.dtype)
        if self.label is not None:
            rows = drop_labels(label, self.label_dropout, keys, none=0)
            h = h + self.label(rows * math.sqrt(self.classes))
        if self.augment is not None:
            h = h + self.augment(augment)
        return jax.nn.silu(self.second(jax.nn.silu(self.first(h))))


class ADMEmbedding(nnx.Module):
    """Of `ADM`: noise level, class and augmentation to one vector of size `width`, after its activation.

    The augmentation's map is added to the `features` of the noise level, the label's to the result.
    """

    def __init__(
        self,
        features: int,
        width: int,
        *,
        classes: int,
        augmentations: int,
        label_dropout: float | int,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        check_unit_interval(label_dropout=label_dropout)
        self.dtype = at_least_single(dtype)
        settings: dict[str, Any] = {"dtype": self.dtype, "param_dtype": param_dtype, "rngs": rngs}
        zeros, normal = nnx.initializers.zeros_init(), nnx.initializers.normal(1.0)
        self.features, self.classes, self.augmentations = features, classes, augmentations
        self.label_dropout = label_dropout
        bare = {"use_bias": False, **settings}
        self.augment = nnx.Linear(augmentations, features, kernel_init=zeros, **bare) if augmentations else None
        self.label = nnx.Linear(classes, width, kernel_init=normal, **bare) if classes else None
        settings["kernel_init"] = uniform_fan_in()
        self.first = nnx.Linear(features, width, bias_init=uniform_bias(features), **settings)
        self.second = nnx.Linear(width, width, bias_init=uniform_bias(width), **settings)

    def __call__(
        self, c_noise: Float[Array, " batch"], condition: Condition | None, keys: PRNGKeys | None
    ) -> Float[Array, "batch width"]:
        label, augment = read_condition(condition, self.classes, self.augmentations, c_noise.shape[0])
        h = cosines_sines(angles(c_noise, self.features // 2, self.features // 2)).astype(self.dtype)
        if self.augment is not None:
            h = h + self.augment(augment)
        h = self.second(jax.nn.silu(self.first(h)))
        if self.label is not None:
            h = h + self.label(drop_labels(label, self.label_dropout, keys, none=0))
        return jax.nn.silu(h)


class FourierAngles(nnx.Module):
    r"""$2 \pi w_k c$ with `count` random frequencies $w_k \sim N(0, 16^2)$, drawn once and not trained.

    See `GaussianFourier`. Here $2 \pi w_k$ is rounded before it meets c, as published: angles reach a thousand, and the
    order of the two products shows in the sixth digit of the network's output.
    """

    def __init__(self, count: int, *, param_dtype: DTypeLike, rngs: nnx.Rngs):
        self.frequencies = nnx.Param(16.0 * jax.random.normal(rngs.params(), (count,), param_dtype))

    def __call__(self, c_noise: Float[Array, " batch"]) -> Float[Array, "batch count"]:
        frequencies = jax.lax.stop_gradient(self.frequencies[...]).astype(jnp.float32)
        return c_noise.astype(jnp.float32)[:, None] * (2.0 * math.pi * frequencies)[None, :]


def angles(c_noise: Float[Array, " batch"], count: int, intervals: int) -> Float[Array, "batch count"]:
    r"""$\omega_k c$ with $\omega_k = 10000^{-k/\mathrm{intervals}}$, k < `count`, in float32.

    Base and exponent are rounded to float32 first, as published: c reaches a thousand, where that shows in the fifth
    digit. Vaswani et al. (2017), section 3.5, https://arxiv.org/abs/1706.03762, with `intervals` = `count`; DDPM's are
    one less, so that the last frequency is 1/10000.
    """
    exponents = np.arange(count, dtype=np.float32) / np.float32(max(intervals, 1))
    frequencies = jnp.asarray(np.float64(np.float32(1e-4)) ** exponents.astype(np.float64), jnp.float32)
    return c_noise.astype(jnp.float32)[:, None] * frequencies[None, :]


def sines_cosines(angle: Float[Array, "batch count"]) -> Float[Array, "batch twice"]:
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


def cosines_sines(angle: Float[Array, "batch count"]) -> Float[Array, "batch twice"]:
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1)
