r"""Where in time a loss is evaluated.

An objective is $E_{t \sim p}\,E\,\lambda(t) \|s - \nabla\log p(x_t \mid x_0)\|^2$ for a distribution $p$ of times. A sampler draws
times, from $p$ or from a proposal $q$, and gives each the weight $p/q$, so that the mean over what it draws is the objective.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._checks import check_increasing, check_nonnegative, concrete_time
from sdelab._typing import PRNGKey, PRNGKeys
from sdelab.sde import AbstractSDE

Times = tuple[Float[Array, " batch"], Float[Array, " batch"]]
"""Times within `[0, sde.t_max]`, and the weight of each, 1 where they are drawn from the objective's own distribution."""


class AbstractTimeSampler(eqx.Module):
    """A rule that draws one training time per sample."""

    @abc.abstractmethod
    def draw(
        self,
        keys: PRNGKeys,
        sde: AbstractSDE,
        *,
        index: Int[Array, " batch"] | None = None,
        shared_key: PRNGKey | None = None,
    ) -> Times:
        """One time and weight per key.

        What one sample draws depends on its own key, on its global `index` in the batch and on `shared_key`, the same
        for all samples of a step: not on which of the others lie on the same device. Errors: an index or a shared key
        that the rule needs and does not get.
        """

    def __call__(self, keys: PRNGKeys, sde: AbstractSDE) -> Float[Array, " batch"]:
        """One time per key, for rules that need nothing else."""
        return self.draw(keys, sde)[0]


class AbstractTimeDistribution(AbstractTimeSampler):
    """Independent times, by their quantile function."""

    @abc.abstractmethod
    def quantile(self, uniform: Float[Array, " batch"], sde: AbstractSDE) -> Times:
        """Times that increase with `uniform` in [0, 1), by the inverse distribution function, and their weights."""

    def draw(
        self,
        keys: PRNGKeys,
        sde: AbstractSDE,
        *,
        index: Int[Array, " batch"] | None = None,
        shared_key: PRNGKey | None = None,
    ) -> Times:
        return self.quantile(jax.vmap(jax.random.uniform)(keys), sde)


class UniformTime(AbstractTimeDistribution):
    r"""$t \sim U(t_{min}, t_{max})$, up to the end of the process.

    `t_min` is training's own: the published codes train from 1e-5 whatever the end of sampling is. At t = 0 the
    likelihood weighting is infinite for most processes. Song et al. (2021), appendix C,
    https://arxiv.org/abs/2011.13456.

    Fields: 0 <= `t_min` < `sde.t_max`.
    """

    t_min: float = eqx.field(default=1e-5, static=True, converter=concrete_time)

    def __check_init__(self):
        check_nonnegative(t_min=self.t_min)

    def quantile(self, uniform: Float[Array, " batch"], sde: AbstractSDE) -> Times:
        check_increasing(t_min=self.t_min, t_max=sde.t_max)
        times = jnp.maximum(uniform * (sde.t_max - self.t_min) + self.t_min, self.t_min)
        return times, jnp.ones_like(times)
