r"""Noise that belongs to a sample: a function of (sample key, interval), whatever the batch around it.

Sample i draws the same bits alone, in a batch of 64, and on 8 devices. On a fixed grid the increments of a Brownian
path are independent, so each is drawn by counter: one Threefry call, keyed by the sample, counted by (interval, word),
gives two words. A loop that folds the interval into every sample's key and then draws would call it twice as often.
"""

import abc
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, UInt32

from sdelab._typing import PRNGKeys
from sdelab.solvers.threefry import threefry_2x32


def sample_keys(key: Key[Array, "..."], n: int, *, first: int = 0) -> PRNGKeys:
    """The keys of samples `first` to `first + n - 1` of a run: `fold_in(key, i)`, shape `(n,)`.

    `sample(sample_keys(key, 1, first=17), process, (1, 2), ...)` is sample 17 of `sample(key, process, (64, 2), ...)`.
    """
    if str(jax.random.key_impl(key)) != "threefry2x32":  # others do not draw the same bits under vmap
        key = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(first, first + n))


def counted_normal(keys: PRNGKeys, count: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Standard normal numbers, shape `(batch, *shape)`: a function of each sample's key and `count` alone."""
    size, dtype = int(np.prod(shape, dtype=np.int64)), jnp.dtype(dtype)
    double = dtype == jnp.float64
    words = _words(keys, count, size if double else (size + 1) // 2)
    if double:
        bits = (words[0].astype(jnp.uint64) << 32) | words[1].astype(jnp.uint64)
    else:
        bits = jnp.stack(words, axis=-1).reshape(keys.shape[0], -1)[:, :size]
    return _normal_from_bits(bits).astype(dtype).reshape(keys.shape[0], *shape)


def _words(
    keys: PRNGKeys, count: Array, calls: int
) -> tuple[UInt32[Array, "batch calls"], UInt32[Array, "batch calls"]]:
    data = jax.random.key_data(keys)
    shape = (keys.shape[0], calls)
    high = jnp.broadcast_to(jnp.asarray(count).astype(jnp.uint32), shape)
    low = jax.lax.broadcasted_iota(jnp.uint32, shape, 1)
    return threefry_2x32((data[:, :1], data[:, 1:2]), (high, low))


def _normal_from_bits(bits: Array) -> Float[Array, "..."]:
    """Mantissa bits to a uniform in (-1, 1), then the inverse of the error function."""
    dtype, mantissa = (jnp.float64, 52) if bits.dtype == jnp.uint64 else (jnp.float32, 23)
    width = bits.dtype.itemsize * 8
    one = np.asarray(1.0, dtype).view(bits.dtype)
    unit = jax.lax.bitcast_convert_type((bits >> np.asarray(width - mantissa, bits.dtype)) | one, dtype) - 1
    low = np.nextafter(np.asarray(-1.0, dtype), np.asarray(0.0, dtype))
    return jnp.asarray(np.sqrt(2.0), dtype) * jax.lax.erf_inv(jnp.maximum(low, unit * (1 - low) + low))


class AbstractNoise(eqx.Module):
    """Standard normal numbers for each interval of a fixed grid."""

    @abc.abstractmethod
    def draw(self, index: Array, draws: int, like: jax.ShapeDtypeStruct) -> Float[Array, "..."]:
        """`draws` independent arrays like the state for interval `index`, shape `(draws, batch, *event)`."""

    @abc.abstractmethod
    def only(self, sample: Array) -> "AbstractNoise":
        """The noise of one sample, for a batch of one."""


class KeyedNoise(AbstractNoise):
    """Noise drawn by counter from one key per sample; `keys` has shape `(batch,)`."""

    keys: PRNGKeys

    def draw(self, index: Array, draws: int, like: jax.ShapeDtypeStruct) -> Float[Array, "..."]:
        z = counted_normal(self.keys, index, (draws, *like.shape[1:]), like.dtype)
        return jnp.moveaxis(z, 1, 0)

    def only(self, sample: Array) -> AbstractNoise:
        return KeyedNoise(self.keys[sample][None])


class StoredNoise(AbstractNoise):
    """Given noise: `values` of shape `(steps, draws, batch, *event)`, to replay a recorded run."""

    values: Float[Array, "steps draws batch ..."]

    def draw(self, index: Array, draws: int, like: jax.ShapeDtypeStruct) -> Float[Array, "..."]:
        if self.values.shape[1:] != (draws, *like.shape):
            raise ValueError(
                f"noise has shape {self.values.shape}; this solver and state need (steps, {draws}, {like.shape})."
            )
        return self.values[index].astype(like.dtype)

    def only(self, sample: Array) -> AbstractNoise:
        return StoredNoise(self.values[:, :, sample][:, :, None])


class NoNoise(AbstractNoise):
    """For deterministic solvers."""

    def draw(self, index: Array, draws: int, like: jax.ShapeDtypeStruct) -> Float[Array, "..."]:
        raise ValueError("this solver draws noise and there is no key: pass one to sample().")

    def only(self, sample: Array) -> AbstractNoise:
        return self


class GridBrownianPath(diffrax.AbstractBrownianPath):
    r"""A Brownian path on the intervals of a fixed grid, for diffrax's SDE solvers.

    Increments are $W \sim N(0, h)$, and the space-time Lévy area $H \sim N(0, h/12)$ is independent of them.
    Foster et al. (2020), theorem 2.2, https://arxiv.org/abs/1905.09881. Unlike `diffrax.UnsafeBrownianPath` it is a
    function of the sample and the interval's index, and so allows reverse mode and is the same in any batch.
    """

    noise: AbstractNoise
    times: Float[Array, " steps_plus_1"]
    like: jax.ShapeDtypeStruct = eqx.field(static=True)
    levy_area: type = eqx.field(static=True, default=diffrax.SpaceTimeLevyArea)

    @property
    def t0(self):
        return self.times[0]

    @property
    def t1(self):
        return self.times[-1]

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
        del left
        if t1 is None:
            raise ValueError("this path has increments only: evaluate it over an interval of its grid.")
        index, step = interval_index(self.times, t0), t1 - t0
        if not use_levy:
            return jnp.sqrt(step) * self.noise.draw(index, 1, self.like)[0]
        z = self.noise.draw(index, 2, self.like)
        return diffrax.SpaceTimeLevyArea(dt=step, W=jnp.sqrt(step) * z[0], H=jnp.sqrt(step / 12) * z[1])


def interval_index(times: Float[Array, " steps_plus_1"], start: ArrayLike) -> Array:
    """Which interval of an increasing grid begins at `start`."""
    return jnp.sum(times <= start) - 1
