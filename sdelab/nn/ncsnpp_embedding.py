"""How `NCSNpp` reads its noise label: features of it, the sigma it stands for, and the embedding of label and class."""

import abc

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sdelab._checks import check_count, check_increasing, check_positive, unknown_name
from sdelab.nn.embedding import GaussianFourier, positional_embedding
from sdelab.nn.layers import check_labels, label_rows
from sdelab.nn.ncsnpp_blocks import Common

EMBEDDINGS = ("fourier", "positional")


class AbstractNoiseLabel(nnx.Module):
    """What `c_noise` means."""

    width: int
    """Of the features."""

    @abc.abstractmethod
    def features(self, c_noise: Float[Array, " batch"]) -> Float[Array, "batch width"]:
        """In float32."""

    @abc.abstractmethod
    def sigma(self, c_noise: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """The noise level, in float32."""


class FourierLabel(AbstractNoiseLabel):
    """`c_noise` is sigma; its features are random Fourier features of log sigma."""

    def __init__(self, channels: int, scale: float | int, common: Common, rngs: nnx.Rngs):
        self.fourier = GaussianFourier(2 * channels, scale, param_dtype=common.param_dtype, rngs=rngs)
        self.width = 2 * channels

    def features(self, c_noise: Float[Array, " batch"]) -> Float[Array, "batch width"]:
        return self.fourier(jnp.log(c_noise.astype(jnp.float32)))

    def sigma(self, c_noise: Float[Array, " batch"]) -> Float[Array, " batch"]:
        return c_noise.astype(jnp.float32)


class PositionalLabel(AbstractNoiseLabel):
    r"""`c_noise` is a step, whole or not; its whole part i stands for sigma_max (sigma_min / sigma_max)^(i / (N - 1)).

    A step outside of 0 to N - 1 has no sigma: NaN. Song and Ermon (2020), section 3.1,
    https://arxiv.org/abs/2006.09011: the sigmas decrease.
    """

    def __init__(self, channels: int, sigma_min: float | int, sigma_max: float | int, num_scales: int):
        check_positive(sigma_min=sigma_min, sigma_max=sigma_max)
        check_increasing(sigma_min=sigma_min, sigma_max=sigma_max)
        check_count(num_scales=num_scales)
        self.width, self.sigma_min, self.sigma_max, self.num_scales = channels, sigma_min, sigma_max, num_scales

    def features(self, c_noise: Float[Array, " batch"]) -> Float[Array, "batch width"]:
        return positional_embedding(c_noise, self.width)

    def sigma(self, c_noise: Float[Array, " batch"]) -> Float[Array, " batch"]:
        index = c_noise.astype(jnp.int32)
        table = jnp.asarray(self.table(), jnp.float32)
        return jnp.where(index >= 0, jnp.take(table, index, mode="fill", fill_value=jnp.nan), jnp.nan)

    def table(self) -> np.ndarray:
        """The sigmas, in float64."""
        return np.exp(np.linspace(np.log(self.sigma_max), np.log(self.sigma_min), self.num_scales))


class LabelEmbedding(nnx.Module):
    """Features of the noise level through two layers, plus a vector for the class; after its activation.

    A class label < 0 stands for none. Errors: labels for a network without classes or noise conditioning; a label that
    the network lacks, which is NaN under `jit`.
    """

    def __init__(self, features: int, classes: int, common: Common, rngs: nnx.Rngs):
        if isinstance(classes, bool) or classes < 0 or (classes and not common.embedding):
            raise ValueError(
                f"classes = {classes} is not accepted; classes must be an integer >= 0, and 0 without noise_conditional."
            )
        self.common, self.classes = common, classes
        if common.embedding:
            self.first = common.embedding_linear(features, common.embedding, rngs)
            self.second = common.embedding_linear(common.embedding, common.embedding, rngs)
        if classes:
            self.label = nnx.Param(jax.random.normal(rngs.params(), (classes, common.embedding), common.param_dtype))

    def __call__(
        self, features: Float[Array, "batch features"], condition: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch width"] | None:
        if condition is not None:
            check_labels(condition, self.classes)
        if not self.common.embedding:
            return None
        h = self.second(self.common.activate(self.first(features)))
        if condition is not None:
            h = h + label_rows(self.label[...], condition).astype(h.dtype)
        return self.common.activate(h)


def make_noise_label(
    name: str,
    channels: int,
    fourier_scale: float | int,
    sigmas: tuple[float | int, float | int, int],
    common: Common,
    rngs: nnx.Rngs,
) -> AbstractNoiseLabel:
    """The label of a name; `sigmas` are the least, the largest, and how many."""
    if name not in EMBEDDINGS:
        raise unknown_name("embedding", name, EMBEDDINGS)
    if name == "fourier":
        return FourierLabel(channels, fourier_scale, common, rngs)
    return PositionalLabel(channels, *sigmas)
