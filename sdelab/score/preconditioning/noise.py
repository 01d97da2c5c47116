import jax.numpy as jnp

from sdelab._checks import check_positive
from sdelab._typing import Scalar
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.unit_input import AbstractUnitInput


class NoisePrediction(AbstractUnitInput):
    r"""The network predicts the noise, $F = \epsilon$: $D = (x - \sigma F)/\alpha$.

    The denoiser is ill-conditioned where $\sigma/\alpha$ is large: an error of $F$ is multiplied by that.
    Ho et al. (2020), eq. 12 and 15, https://arxiv.org/abs/2006.11239.

    Fields: `data_std` > 0, standard deviation of the data, for the scale of the input.
    """

    data_std: Scalar = 1.0

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / alpha

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma / alpha

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.zeros_like(sigma)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.ones_like(sigma)
