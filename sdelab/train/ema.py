r"""Averages of the parameters, $e \leftarrow e + r_n (p - e)$, each with a rule for its decay $d_n = 1 - r_n$."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdelab._checks import check_count, check_nonnegative, check_positive, check_unit_interval
from sdelab._typing import Scalar


class AbstractDecay(eqx.Module):
    """The decay of an average as a function of the number of updates."""

    @abc.abstractmethod
    def rate(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        """The share of the new parameters in [0, 1] at update number `updates`, which counts from 1.

        It is what an average is made with, since near a decay of 1 it has digits that the decay has not.
        """

    def __call__(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        """The decay in [0, 1] of update number `updates`."""
        return 1.0 - self.rate(updates)


class ConstantDecay(AbstractDecay):
    """The same decay at every update. Song et al. (2021), appendix H, https://arxiv.org/abs/2011.13456.

    Fields: `decay` in [0, 1]; the published values are 0.9999 (VP, sub-VP) and 0.999 (VE).
    """

    decay: Scalar = 0.9999

    def __check_init__(self):
        check_unit_interval(decay=self.decay)

    def rate(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        return 1.0 - jnp.asarray(self.decay, jnp.float32)


class WarmupDecay(AbstractDecay):
    r"""$d_n = \min(d, \frac{1 + n}{10 + n})$: the average forgets the initial weights in the first hundred updates.

    The rule of TensorFlow's `ExponentialMovingAverage(num_updates=n)`,
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage, used by the PyTorch code of Song et al.

    Fields: `decay` d in [0, 1], the limit.
    """

    decay: Scalar = 0.9999

    def __check_init__(self):
        check_unit_interval(decay=self.decay)

    def rate(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        n = updates.astype(jnp.float32)
        return 1.0 - jnp.minimum(jnp.asarray(self.decay, jnp.float32), (1.0 + n) / (10.0 + n))


class HalfLifeDecay(AbstractDecay):
    r"""$d_n = 2^{-b / h_n}$: what was learnt $h$ images ago has half the weight; $h_n = \min(h, \rho\,b\,(n - 1))$ at first.

    The rule of EDM, which counts the images before the update. Karras et al. (2022), https://arxiv.org/abs/2206.00364,
    `training_loop` of https://github.com/NVlabs/edm.

    Fields: `half_life` h > 0 in images, published 500 000 for CIFAR-10; `ramp_up` $\rho$ >= 0, the half-life as a share of
    the images seen so far, published 0.05, and 0 for no ramp-up; `batch_size` b, given by the run.
    """

    half_life: float | int
    batch_size: int
    ramp_up: float | int = 0.05

    def __check_init__(self):
        check_positive(half_life=self.half_life)
        check_count(batch_size=self.batch_size)
        check_nonnegative(ramp_up=self.ramp_up)

    def rate(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        batches = jnp.asarray(self.half_life / self.batch_size, jnp.float32)
        if self.ramp_up > 0:
            batches = jnp.minimum(batches, self.ramp_up * (updates - 1).astype(jnp.float32))
        return -jnp.expm1(-math.log(2.0) / jnp.maximum(batches, 1e-8))


class PowerDecay(AbstractDecay):
    r"""$d_n = (1 - 1/n)^{\gamma + 1}$: an average with the profile $p_\gamma(\tau) \propto \tau^\gamma$.

    After n updates the parameters of update k weigh $\int_{k-1}^k p_\gamma(\tau)\,d\tau$, without approximation.
    The profile keeps its shape as training goes on: its standard deviation is `sigma_rel` times its length. Any other can be
    made of stored ones: `sdelab.train.ema_posthoc`. Karras et al. (2024), section 3.1, https://arxiv.org/abs/2312.02696.

    Fields: `sigma_rel` in (0, 0.288]; the published pair is 0.05 and 0.10.
    """

    sigma_rel: float

    def __check_init__(self):
        power_of(self.sigma_rel)

    def rate(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        n = updates.astype(jnp.float32)
        return -jnp.expm1((power_of(self.sigma_rel) + 1.0) * jnp.log1p(-1.0 / n))


WIDEST = 12.0**-0.5
"""The relative width of a uniform average, $\\gamma = 0$."""


def power_of(sigma_rel: float) -> float:
    r"""$\gamma$ of the profile with the relative width $\sigma_{rel} = \sqrt{\gamma + 1}\,/\,((\gamma + 2)\sqrt{\gamma + 3})$.

    The largest real root of $(\gamma + 2)^2 (\gamma + 3) = \sigma_{rel}^{-2} (\gamma + 1)$. Karras et al. (2024), eq. 126.
    Errors: a width outside (0, 12^-1/2]: wider ones weigh early parameters more than late ones.
    """
    if not 0.0 < sigma_rel <= WIDEST:
        raise ValueError(f"sigma_rel = {sigma_rel} is not accepted; sigma_rel must be in (0, {WIDEST:.4f}].")
    inverse = float(sigma_rel) ** -2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(np.max(roots.real[np.abs(roots.imag) < 1e-9])))


def update_average(average: Any, params: Any, rate: Float[Array, ""]) -> Any:
    r"""$e + r (p - e)$, leaf by leaf, each in its own dtype."""
    return jax.tree.map(lambda e, p: e + rate.astype(e.dtype) * (p - e), average, params)
