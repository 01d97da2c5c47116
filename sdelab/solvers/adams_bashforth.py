import equinox as eqx

from sdelab._checks import check_count, check_instance
from sdelab.solvers.correction import AbstractCorrection, NoCorrection
from sdelab.solvers.history import AbstractEnding, AbstractStart, FullOrder, RungeKuttaStart
from sdelab.solvers.multistep import AbstractMultistep
from sdelab.solvers.newton import AbstractLinearTerm
from sdelab.solvers.prediction import AbstractPrediction, DataPrediction, NoisePrediction
from sdelab.solvers.variable import AbstractVariable, HalfLogSNR, Time

MOST_POINTS = 4


class ExponentialAdamsBashforth(AbstractMultistep):
    r"""The exponential Adams–Bashforth method of orders 1 to 4 in $\lambda = \log(\alpha/\sigma)$; one evaluation a step.

    Of the predicted data, $x_1 = \frac{\sigma_1}{\sigma_0} x_0 + \alpha_1 \int_0^h e^{u - h} P(u)\,du$, with $P$ the polynomial of degree
    `order` - 1 in $u = \lambda - \lambda_0$ through the last predictions, integrated exactly; of the predicted noise,
    $x_1 = \frac{\alpha_1}{\alpha_0} x_0 - \sigma_1 \int_0^h e^{h - u} P(u)\,du$, which is DEIS with a polynomial in $\log\rho$. Order 1 is
    DDIM. Hochbruck and Ostermann (2010), section 2.5, https://doi.org/10.1017/S0962492910000048; Zhang and Chen (2022),
    https://arxiv.org/abs/2204.13902.

    Fields: `prediction`: `DataPrediction()` or `NoisePrediction()`; `start` and `ending` as in `AbstractMultistep`.
    """

    interpolated: int = eqx.field(static=True)
    predicted: AbstractPrediction
    start: AbstractStart
    ending: AbstractEnding

    def __init__(
        self,
        order: int = 3,
        prediction: AbstractPrediction = DataPrediction(),
        *,
        start: AbstractStart = RungeKuttaStart(),
        ending: AbstractEnding = FullOrder(),
    ):
        self.interpolated, self.predicted = check_order(order, MOST_POINTS), prediction
        self.start, self.ending = start, ending

    def __check_init__(self):
        check_instance(AbstractPrediction, prediction=self.predicted)

    def points(self) -> int:
        return self.interpolated

    def prediction(self) -> AbstractPrediction:
        return self.predicted

    def variable(self) -> AbstractVariable:
        return HalfLogSNR()

    def linear_term(self) -> AbstractLinearTerm | None:
        return None

    def correction(self) -> AbstractCorrection:
        return NoCorrection()


class DEIS(AbstractMultistep):
    r"""DEIS: the predicted noise as a polynomial in t, integrated against the exact kernel; orders 1 to 4, one evaluation a step.

    $x_1 = \frac{\alpha_1}{\alpha_0} x_0 + \alpha_1 \int_{\rho_0}^{\rho_1} P\,d\rho$ with $\rho = \sigma/\alpha$. Zhang and Chen (2022),
    tAB-DEIS (section 3.3) and $\rho$AB-DEIS (section 4), https://arxiv.org/abs/2204.13902.

    Fields: `variable`: `Time()` (tAB-DEIS, the default), or `NoiseToSignal()`: $\rho$AB-DEIS, which under EDM's process is the
    linear multistep method "LMS". `start` and `ending` as in `AbstractMultistep`.
    """

    interpolated: int = eqx.field(static=True)
    interpolant: AbstractVariable
    start: AbstractStart
    ending: AbstractEnding

    def __init__(
        self,
        order: int = 3,
        variable: AbstractVariable = Time(),
        *,
        start: AbstractStart = RungeKuttaStart(),
        ending: AbstractEnding = FullOrder(),
    ):
        self.interpolated, self.interpolant = check_order(order, MOST_POINTS), variable
        self.start, self.ending = start, ending

    def __check_init__(self):
        check_instance(AbstractVariable, variable=self.interpolant)

    def points(self) -> int:
        return self.interpolated

    def prediction(self) -> AbstractPrediction:
        return NoisePrediction()

    def variable(self) -> AbstractVariable:
        return self.interpolant

    def linear_term(self) -> AbstractLinearTerm | None:
        return None

    def correction(self) -> AbstractCorrection:
        return NoCorrection()


def check_order(order: int, most: int) -> int:
    """`order`, or an error: it must be an integer from 1 to `most`."""
    check_count(order=order)
    if order > most:
        raise ValueError(f"order = {order} is not accepted; accepted: 1 to {most}.")
    return order
