import jax.numpy as jnp
from equinox import AbstractVar

from sdelab._typing import Scalar
from sdelab.score.preconditioning.base import AbstractPreconditioner, Coefficient


class AbstractUnitInput(AbstractPreconditioner):
    r"""The network sees an input of unit variance, and the noise level on a logarithmic scale.

    $c_{in} = (\alpha^2 s_d^2 + \sigma^2)^{-1/2}$ with $s_d$ the standard deviation of the data: 1 for VP on standardised
    data, 1/50 at the far end of VE. $c_{noise} = \tfrac14 \log(\sigma/\alpha) = -\tfrac18 \mathrm{log\_snr}$ lies within
    about [-3, 2] for all processes. It is the same function of the noise level for all of them, so that a network
    does not depend on how a process runs its clock.
    Karras et al. (2022), table 1, https://arxiv.org/abs/2206.00364.
    """

    data_std: AbstractVar[Scalar]

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / self._input_std(alpha, sigma)

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        ratio = sigma / alpha
        # finite at sigma = 0, where D = x is defined and a NaN label would spoil it
        return 0.25 * jnp.log(jnp.maximum(ratio, jnp.finfo(ratio.dtype).tiny))

    def _input_std(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.sqrt((alpha * self.data_std) ** 2 + sigma**2)
