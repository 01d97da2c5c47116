r"""Exponential moving average of the parameters, $e \leftarrow e + (1 - d_n)(p - e)$ with a decay rule $d_n$."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._checks import check_unit_interval
from sdelab._typing import Scalar


class AbstractDecay(eqx.Module):
    """The decay of an average as a function of the number of updates."""

    @abc.abstractmethod
    def __call__(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        """The decay in [0, 1] of update number `updates`, which counts from 1."""


class ConstantDecay(AbstractDecay):
    """The same decay at every update. Song et al. (2021), appendix H, https://arxiv.org/abs/2011.13456.

    Fields: `decay` in [0, 1]; the published values are 0.9999 (VP, sub-VP) and 0.999 (VE).
    """

    decay: Scalar = 0.9999

    def __check_init__(self):
        check_unit_interval(decay=self.decay)

    def __call__(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.decay, jnp.float32)


class WarmupDecay(AbstractDecay):
    r"""$d_n = \min(d, \frac{1 + n}{10 + n})$: the average forgets the initial weights in the first hundred updates.

    The rule of TensorFlow's `ExponentialMovingAverage(num_updates=n)`,
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage, used by the PyTorch code of Song et al.

    Fields: `decay` d in [0, 1], the limit.
    """

    decay: Scalar = 0.9999

    def __check_init__(self):
        check_unit_interval(decay=self.decay)

    def __call__(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        n = updates.astype(jnp.float32)
        return jnp.minimum(jnp.asarray(self.decay, jnp.float32), (1.0 + n) / (10.0 + n))


def update_average(average: Any, params: Any, decay: Float[Array, ""]) -> Any:
    r"""$e + (1 - d)(p - e)$, leaf by leaf, each in its own dtype."""
    return jax.tree.map(lambda e, p: e + (1.0 - decay).astype(e.dtype) * (p - e), average, params)
