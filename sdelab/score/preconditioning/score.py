import jax.numpy as jnp

from sdelab._checks import check_positive
from sdelab._typing import Scalar
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.unit_input import AbstractUnitInput


class ScorePrediction(AbstractUnitInput):
    r"""The network predicts the score, $F = s$: $\epsilon = -\sigma F$ and $D = (x + \sigma^2 F)/\alpha$.

    The target grows like $1/\sigma$ towards the data. Published networks divide their output by $\sigma$ for that
    reason, which makes them `NoisePrediction` with the opposite sign.
    Song and Ermon (2019), section 4, https://arxiv.org/abs/1907.05600.

    Fields: `data_std` > 0, standard deviation of the data, for the scale of the input.
    """

    data_std: Scalar = 1.0

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / alpha

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma**2 / alpha

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.zeros_like(sigma)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma
