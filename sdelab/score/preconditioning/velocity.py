from sdelab._checks import check_positive
from sdelab._typing import Scalar
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.unit_input import AbstractUnitInput


class VelocityPrediction(AbstractUnitInput):
    r"""The network predicts $F = v = \alpha\epsilon - \sigma x_0$.

    $D = (\alpha x - \sigma F)/(\alpha^2 + \sigma^2)$ and $\epsilon = (\sigma x + \alpha F)/(\alpha^2 + \sigma^2)$. The target has
    unit scale where $\alpha^2 + \sigma^2 = 1$; for the variance-exploding processes it grows like $\sigma$, and
    `EDMPreconditioner(data_std=1)` is the same prediction at unit scale.
    Salimans and Ho (2022), appendix D, https://arxiv.org/abs/2202.00512.

    Fields: `data_std` > 0, standard deviation of the data, for the scale of the input.
    """

    data_std: Scalar = 1.0

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return alpha / (alpha**2 + sigma**2)

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma / (alpha**2 + sigma**2)

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma / (alpha**2 + sigma**2)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return alpha / (alpha**2 + sigma**2)
