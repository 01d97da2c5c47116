"""What the networks share: embeddings of noise level and label, normalisation, dropout."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from sdelab._checks import check_count, is_concrete
from sdelab._typing import PRNGKey, PRNGKeys

_LOWEST, _HIGHEST = 1.0, 64.0  # radians per unit of c_noise: from its whole range, about 4, down to 0.1


def check_rate(dropout: float | int) -> None:
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout = {dropout} is not accepted; dropout must be a number in [0, 1).")


def fourier_features(c_noise: Float[Array, " batch"], width: int) -> Float[Array, "batch width"]:
    r"""$[\cos(\omega_k c), \sin(\omega_k c)]$ with `width`/2 frequencies in geometric progression from 1 to 64.

    In float32 whatever the network computes in. The table is a constant of the program, not a parameter.
    Vaswani et al. (2017), section 3.5, https://arxiv.org/abs/1706.03762.
    """
    frequencies = jnp.geomspace(_LOWEST, _HIGHEST, width // 2, dtype=jnp.float32)
    angles = c_noise.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


def dropout(
    x: Float[Array, "batch ..."], rate: float | int, keys: PRNGKeys | None, layer: int
) -> Float[Array, "batch ..."]:
    """Inverted dropout with a key per sample: what a sample draws does not depend on the batch around it.

    `layer` tells the layers of a network apart. Without keys, and at rate 0, the identity.
    """
    if keys is None or rate == 0.0:
        return x
    threshold = round(rate * 2**16)
    keep = 1.0 - threshold / 2**16
    kept = jax.vmap(lambda key: at_least(threshold, jax.random.fold_in(key, layer), x.shape[1:]))(keys)
    return jnp.where(kept, x / keep, jnp.zeros_like(x))


def at_least(threshold: int, key: PRNGKey, shape: tuple[int, ...]) -> Bool[Array, "*shape"]:
    """Whether uniform integers below 2**16 are at least `threshold`.

    There are two in each word: `jax.random.bits` draws a word of 32 bits for each of 16 too.
    """
    if not shape:
        return (jax.random.bits(key, dtype=jnp.uint32) & 0xFFFF) >= threshold
    words = jax.random.bits(key, (-(-shape[0] // 2), *shape[1:]), jnp.uint32)
    return jnp.concatenate([(words & 0xFFFF) >= threshold, (words >> 16) >= threshold])[: shape[0]]


def at_least_single(dtype: DTypeLike) -> Any:
    """The dtype of what is made of noise level and label: in bfloat16 neighbouring noise levels would be one.

    So it is where others train in 16 bits: `SongUNet`, `DhariwalUNet` and EDM2's network embed and modulate in float32 and round
    at the image (https://github.com/NVlabs/edm, https://github.com/NVlabs/edm2, training/networks*.py), guided-diffusion converts its
    convolutions alone (https://github.com/openai/guided-diffusion, fp16_util.py).
    """
    return jnp.dtype(jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32)


class Embedding(nnx.Module):
    """Noise level and, where `classes` > 0, class label to one vector of size `width`, after its activation.

    A negative label, and `condition=None`, stand for no label. Errors: a label that is not an integer, or is given
    to a network without classes; a label >= `classes` under `jit`, where it cannot raise, gives NaN.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        features: int = 64,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.features, self.classes, self.dtype = features, classes, at_least_single(dtype)
        self.first = nnx.Linear(features, width, dtype=self.dtype, param_dtype=param_dtype, rngs=rngs)
        self.second = nnx.Linear(width, width, dtype=self.dtype, param_dtype=param_dtype, rngs=rngs)
        if classes > 0:
            self.label = nnx.Param(0.5 * jax.random.normal(rngs.params(), (classes, width), param_dtype))

    def __call__(
        self, c_noise: Float[Array, " batch"], condition: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch width"]:
        h = self.first(fourier_features(c_noise, self.features).astype(self.dtype))
        h = self.second(jax.nn.silu(h))
        if condition is not None:
            h = h + self._label(condition).astype(self.dtype)
        return jax.nn.silu(h)

    def _label(self, condition: Int[Array, " batch"]) -> Float[Array, "batch width"]:
        check_labels(condition, self.classes)
        return label_rows(self.label[...], condition)


def check_labels(condition: Int[Array, " batch"], classes: int) -> None:
    if classes == 0:
        raise ValueError("condition was given to a network without labels; accepted: None, or classes > 0.")
    # in NumPy: under jit JAX traces also what it computes from a constant
    if is_concrete(condition) and condition.size and int(np.max(np.asarray(condition))) >= classes:
        raise ValueError(
            f"condition = {condition} has a label that the network does not know; accepted: labels less than "
            f"{classes}, negative for no label."
        )


def label_rows(table: Float[Array, "classes width"], condition: Int[Array, " batch"]) -> Float[Array, "batch width"]:
    """The row of each label, zeros for a negative one, NaN for one that the table lacks."""
    rows = jnp.take(table, jnp.maximum(condition, 0), axis=0, mode="fill")
    return jnp.where((condition >= 0)[:, None], rows, jnp.zeros_like(rows))


class GroupNorm(nnx.Module):
    r"""Group normalisation whose scale and shift may also come from an embedding, in one multiply-add over the image.

    $(1 + s)\,(\gamma\,(x + o - \mu) / \sqrt{v + \epsilon} + \beta) + t$ with mean $\mu$ and variance $v$ of $x + o$ over the pixels and
    channels of a group, parameters $\gamma$ and $\beta$, the `modulation` $(s, t)$ and the `offset` o.

    Statistics in float32, by sums over pixels first: two reads of the image in all. `groups` divides `channels`; by
    default their greatest common divisor with 8. The variance of a channel is the mean of squares less the square of the mean: one
    whose mean is a hundred of its standard deviations keeps three digits of it.

    What is added to a channel before the norm, a convolution's bias or an embedding, changes the image's means and not
    its variances in each channel: as `offset` it costs no pass over the image, forwards or backwards.

    Wu and He (2018), section 3, https://arxiv.org/abs/1803.08494; Perez et al. (2017), section 2 (the modulation),
    https://arxiv.org/abs/1709.07871.
    """

    def __init__(
        self,
        channels: int,
        *,
        groups: int | None = None,
        epsilon: float = 1e-5,
        param_dtype: DTypeLike = jnp.float32,
    ):
        groups = math.gcd(channels, 8) if groups is None else groups
        check_count(channels=channels, groups=groups)
        if channels % groups:
            raise ValueError(f"groups = {groups} is not accepted; groups must divide the {channels} channels.")
        self.groups, self.epsilon = groups, epsilon
        self.scale = nnx.Param(jnp.ones((channels,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((channels,), param_dtype))

    def __call__(
        self,
        x: Float[Array, "batch *space channels"],
        modulation: Float[Array, "batch twice"] | None = None,
        *,
        offset: Float[Array, "#batch channels"] | None = None,
    ) -> Float[Array, "batch *space channels"]:
        """Of `x` plus the `offset` of each channel.

        `modulation` holds scale and shift, `2 * channels` numbers for each sample; 0 leaves the norm as it is.
        """
        return multiply_add(x, *self.gain_and_shift((x,), modulation, offset))

    def gain_and_shift(
        self,
        parts: Sequence[Float[Array, "batch *space _"]],
        modulation: Float[Array, "batch twice"] | None = None,
        offset: Float[Array, "#batch channels"] | None = None,
    ) -> tuple[Float[Array, "batch channels"], Float[Array, "batch channels"]]:
        """What the norm of `parts` plus `offset` multiplies each channel of the `parts` with and adds to it.

        The channels are those of all `parts`, in order. Both end in their division: XLA on CPU computes what divides once for all
        pixels, and what only multiplies and adds again for each of them, from the arrays that it is made of.
        """
        offset = None if offset is None else offset.astype(jnp.float32)
        mean, std = self._statistics(parts, offset)
        gain, shift = self._parameters(mean.shape[0])
        if modulation is not None:
            scale, more = jnp.split(modulation.astype(jnp.float32), 2, axis=-1)
            gain, shift = gain * (1.0 + scale), shift * (1.0 + scale) + more
        return gain / std, (shift * std - mean * gain) / std

    def _parameters(self, batch: int) -> tuple[Array, Array]:
        """Scale and bias for each sample.

        They are stacked before they are repeated: XLA would take the sum over samples and pixels, the gradient of a
        bias that is repeated alone, in a pass of its own beside the sums over pixels.
        """
        stacked = jnp.stack([self.scale[...], self.bias[...]]).astype(jnp.float32)
        repeated = jnp.broadcast_to(stacked, (batch, *stacked.shape))
        return repeated[:, 0], repeated[:, 1]

    def _statistics(
        self, parts: Sequence[Float[Array, "batch *space _"]], offset: Float[Array, "#batch channels"] | None
    ) -> tuple[Array, Array]:
        """What to subtract from each channel of the `parts`, and the standard deviation of its group.

        The variance of a group is the mean of its channels' variances plus the variance of their means.
        """
        flat = [x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1]) for x in parts]
        mean, square = (jnp.concatenate([jnp.mean(x**k, axis=1) for x in flat], axis=-1) for k in (1, 2))
        grouped = (mean.shape[0], self.groups, -1)
        within = (square - mean**2).reshape(grouped)
        shifted = mean if offset is None else mean + offset
        middle = jnp.mean(shifted.reshape(grouped), axis=-1, keepdims=True)
        between = (shifted.reshape(grouped) - middle) ** 2
        variance = jnp.maximum(jnp.mean(within + between, axis=-1, keepdims=True), 0.0)
        std = jnp.sqrt(variance + self.epsilon)
        middle, std = (jnp.broadcast_to(a, between.shape).reshape(mean.shape) for a in (middle, std))
        return middle if offset is None else middle - offset, std


def multiply_add(
    x: Float[Array, "batch *space channels"],
    gain: Float[Array, "batch channels"],
    shift: Float[Array, "batch channels"],
) -> Float[Array, "batch *space channels"]:
    """`gain * x + shift` in float32, each sample's channels having their own; in the dtype of `x`."""
    shape = (x.shape[0],) + (1,) * (x.ndim - 2) + (x.shape[-1],)
    return (x.astype(jnp.float32) * gain.reshape(shape) + shift.reshape(shape)).astype(x.dtype)
