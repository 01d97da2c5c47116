"""Times that are not independent of one another, so that a batch covers the distribution evenly.

They are functions of the sample's global index, whatever the layout of the batch over devices: batch i of a data set is
permuted, so which sample has which index is itself at random.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._checks import check_count, check_instance
from sdelab._typing import PRNGKey, PRNGKeys
from sdelab.losses.time_sampling import AbstractTimeDistribution, AbstractTimeSampler, Times
from sdelab.sde import AbstractSDE

_PAIRS = 0x70616972  # apart from the indices that others fold into the step's key


class Stratified(AbstractTimeSampler):
    r"""One time in each of B strata of equal probability: sample i has $F(t_i) \sim U(\tfrac{i}{B}, \tfrac{i + 1}{B})$.

    The mean over the batch is unbiased, as for independent times, and has lost the variance between the strata: for a
    loss that is smooth in time $O(B^{-3})$ instead of $O(B^{-1})$ is left of what time contributes. The loss of one
    sample is not an unbiased estimate by itself. Needs `index`.
    Owen (2013), Monte Carlo theory, methods and examples, section 8.4, https://artowen.su.domains/mc/.

    Fields: `distribution`; `batch_size` = B >= 1, over all devices (indices are taken modulo B).
    """

    distribution: AbstractTimeDistribution
    batch_size: int = eqx.field(static=True)

    def __check_init__(self):
        check_instance(AbstractTimeDistribution, distribution=self.distribution)
        check_count(batch_size=self.batch_size)

    def draw(
        self,
        keys: PRNGKeys,
        sde: AbstractSDE,
        *,
        index: Int[Array, " batch"] | None = None,
        shared_key: PRNGKey | None = None,
    ) -> Times:
        if index is None:
            raise ValueError(
                "index = None is not accepted by Stratified; give each sample's global index in the batch."
            )
        jitter = jax.vmap(jax.random.uniform)(keys)
        stratum = (index % self.batch_size).astype(jitter.dtype)
        return self.distribution.quantile(_below_one((stratum + jitter) / self.batch_size), sde)


class Antithetic(AbstractTimeSampler):
    r"""Samples 2k and 2k + 1 have $F(t) = u$ and $1 - u$ with one $u \sim U(0, 1)$: each time is drawn from the distribution itself.

    What is odd in $F(t)$ about its middle cancels in a pair. The number of a pair comes from `shared_key` and the index, so that
    the two may lie on different devices. Needs `index` and `shared_key`.
    Hammersley and Morton (1956), https://doi.org/10.1017/S0305004100031455.

    Fields: `distribution`.
    """

    distribution: AbstractTimeDistribution

    def __check_init__(self):
        check_instance(AbstractTimeDistribution, distribution=self.distribution)

    def draw(
        self,
        keys: PRNGKeys,
        sde: AbstractSDE,
        *,
        index: Int[Array, " batch"] | None = None,
        shared_key: PRNGKey | None = None,
    ) -> Times:
        if index is None or shared_key is None:
            raise ValueError(
                "index or shared_key = None is not accepted by Antithetic; give each sample's global index in the batch, "
                "and one key that all samples of the step share."
            )
        key_pairs = jax.random.fold_in(shared_key, _PAIRS)
        uniform = jax.vmap(lambda pair: jax.random.uniform(jax.random.fold_in(key_pairs, pair)))(index // 2)
        return self.distribution.quantile(_below_one(jnp.where(index % 2 == 0, uniform, 1.0 - uniform)), sde)


def _below_one(uniform: Float[Array, " batch"]) -> Float[Array, " batch"]:
    return jnp.minimum(uniform, 1.0 - 0.5 * jnp.finfo(uniform.dtype).eps)
