from sdelab._checks import check_positive
from sdelab._typing import Scalar
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.unit_input import AbstractUnitInput


class EDMPreconditioner(AbstractUnitInput):
    r"""EDM's preconditioner, for any affine process: input and target have unit variance at every noise level.

    In the variable $x/\alpha$, whose noise is $\sigma/\alpha$, these are the published coefficients; in $x$ itself, with
    the data's standard deviation $s_d$ and $r^2 = \alpha^2 s_d^2 + \sigma^2$: $c_{skip} = \alpha s_d^2/r^2$,
    $c_{out} = \sigma s_d/r$, $c_{in} = 1/r$, $c_{noise} = \tfrac14 \log(\sigma/\alpha)$, and for the noise
    $n_{skip} = \sigma/r^2$, $n_{out} = -\alpha s_d/r$. A network that returns 0 gives the exact score of
    $N(0, s_d^2 I)$ data. Karras et al. (2022), table 1 and appendix B.6, https://arxiv.org/abs/2206.00364.

    Fields: `data_std` > 0, the paper's $\sigma_{data}$: standard deviation of the data.
    """

    data_std: Scalar = 0.5

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return alpha * (self.data_std / self._input_std(alpha, sigma)) ** 2

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma * self.data_std / self._input_std(alpha, sigma)

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma / self._input_std(alpha, sigma) ** 2

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -alpha * self.data_std / self._input_std(alpha, sigma)
