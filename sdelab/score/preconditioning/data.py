import jax.numpy as jnp

from sdelab._checks import check_positive
from sdelab._typing import Scalar
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.unit_input import AbstractUnitInput


class DataPrediction(AbstractUnitInput):
    r"""The network predicts the clean data, $F = D$: $\epsilon = (x - \alpha F)/\sigma$.

    The noise is ill-conditioned where $\sigma/\alpha$ is small. Salimans and Ho (2022), section 4,
    https://arxiv.org/abs/2202.00512.

    Fields: `data_std` > 0, standard deviation of the data, for the scale of the input.
    """

    data_std: Scalar = 1.0

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.zeros_like(sigma)

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.ones_like(sigma)

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / sigma

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -alpha / sigma
