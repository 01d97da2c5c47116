"""Distributions of the noise level, for any affine process: its clock does not matter."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import check_finite, check_instance, check_positive
from sdelab._typing import Scalar
from sdelab.losses.time_sampling import AbstractTimeDistribution, Times
from sdelab.reverse import require_affine
from sdelab.sde import AbstractAffineSDE, AbstractSDE


class LogNormalNoise(AbstractTimeDistribution):
    r"""EDM's noise levels: $\log(\sigma/\alpha) \sim N(\mathrm{mean}, \mathrm{std}^2)$, for any affine process.

    Levels that the process does not have become its nearest one: those above $\sigma/\alpha$ at `t_max`, and below that at
    t = 0. It is the objective's own distribution, so the weights are 1. Karras et al. (2022), table 1 and section 5,
    https://arxiv.org/abs/2206.00364; `EDM2Loss` of Karras et al. (2024), https://github.com/NVlabs/edm2, takes -0.4 and 1.0.

    Fields: `mean` and `std` > 0 of the logarithm, the paper's $P_{mean}$ and $P_{std}$.
    """

    mean: Scalar = -1.2
    std: Scalar = 1.2

    def __check_init__(self):
        check_finite(mean=self.mean)
        check_positive(std=self.std)

    def quantile(self, uniform: Float[Array, " batch"], sde: AbstractSDE) -> Times:
        sde = require_affine(sde, "LogNormalNoise")
        edge = 0.5 * jnp.finfo(uniform.dtype).eps  # a uniform number may be 0, where the logarithm is infinite
        normal = jax.scipy.special.ndtri(jnp.clip(uniform, edge, 1.0 - edge))
        times = time_of_level(sde, -2.0 * (self.mean + self.std * normal))
        return times, jnp.ones_like(times)


class NoiseOf(AbstractTimeDistribution):
    r"""The noise levels that another process has at other times: $\sigma/\alpha$ of `process` at $t' \sim$ `times`.

    EDM's `VPLoss` is `NoiseOf(VP(), UniformTime(1e-5))` with the weight `SigmaSquared()`, its `VELoss`
    `NoiseOf(VE(0.02, 100.0), UniformTime(0.0))` with the same weight, under any process that has these levels; those
    that it does not have become its nearest one. Karras et al. (2022), table 1, https://arxiv.org/abs/2206.00364.

    Fields: `process`, affine; `times`, a distribution of its times.
    """

    process: AbstractAffineSDE
    times: AbstractTimeDistribution

    def __check_init__(self):
        check_instance(AbstractAffineSDE, process=self.process)
        check_instance(AbstractTimeDistribution, times=self.times)

    def quantile(self, uniform: Float[Array, " batch"], sde: AbstractSDE) -> Times:
        times, weight = self.times.quantile(uniform, self.process)
        return time_of_level(require_affine(sde, "NoiseOf"), self.process.log_snr(times)), weight


def time_of_level(sde: AbstractAffineSDE, log_snr: Float[Array, "..."]) -> Float[Array, "..."]:
    """The time at which the process has this log-SNR, or the nearest that it has."""
    ends = [sde.log_snr(jnp.asarray(t, log_snr.dtype)) for t in (sde.t_max, 0.0)]
    return sde.log_snr_inverse(jnp.clip(log_snr, *ends))
