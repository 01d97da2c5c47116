"""Where in time a loss is evaluated."""

import abc

import equinox as eqx
import jax
from jaxtyping import Array, Float

from sdelab._checks import check_increasing, check_nonnegative, concrete_time
from sdelab._typing import PRNGKeys
from sdelab.sde import AbstractSDE


class AbstractTimeSampler(eqx.Module):
    """A distribution of training times, drawn with one key per sample."""

    @abc.abstractmethod
    def __call__(self, keys: PRNGKeys, sde: AbstractSDE) -> Float[Array, " batch"]:
        """One time per key, within `[0, sde.t_max]`."""


class UniformTime(AbstractTimeSampler):
    r"""$t \sim U(t_{min}, t_{max})$, up to the end of the process.

    `t_min` is training's own: the published codes train from 1e-5 whatever the end of sampling is. At t = 0 the
    likelihood weighting is infinite for most processes. Song et al. (2021), appendix C,
    https://arxiv.org/abs/2011.13456.

    Fields: 0 <= `t_min` < `sde.t_max`.
    """

    t_min: float = eqx.field(default=1e-5, static=True, converter=concrete_time)

    def __check_init__(self):
        check_nonnegative(t_min=self.t_min)

    def __call__(self, keys: PRNGKeys, sde: AbstractSDE) -> Float[Array, " batch"]:
        check_increasing(t_min=self.t_min, t_max=sde.t_max)
        return jax.vmap(lambda key: jax.random.uniform(key, minval=self.t_min, maxval=sde.t_max))(keys)
