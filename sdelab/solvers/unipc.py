import equinox as eqx

from sdelab._checks import check_instance
from sdelab.solvers.adams_bashforth import check_order
from sdelab.solvers.correction import AbstractCorrection, UniC
from sdelab.solvers.history import AbstractEnding, AbstractStart, FullOrder, RungeKuttaStart
from sdelab.solvers.multistep import AbstractMultistep
from sdelab.solvers.newton import BH2, AbstractLinearTerm
from sdelab.solvers.prediction import AbstractPrediction, DataPrediction
from sdelab.solvers.variable import AbstractVariable, HalfLogSNR

MOST_POINTS = 3


class UniPC(AbstractMultistep):
    r"""UniPC-p, p = 1 to 3: order p + 1 with its corrector, p without; one evaluation a step.

    The predictor is the exponential Adams–Bashforth method through p predictions, the corrector the exponential
    Adams–Moulton method through these and the one at the end of the step, which the next step uses too. So a
    step first corrects the one before it: between the steps (in `trajectory`) stands the predicted state, and the last
    step is not corrected, as published. Zhao et al. (2023), algorithms 1 and 2, https://arxiv.org/abs/2302.04867.

    The published linear systems have these polynomials as their solutions, but for two coefficients that the
    published code sets to 1/2: of the predictor of order 2 and of the corrector of order 1.

    Fields: `order`, p; `coefficients` decides on these: `BH1()`, `BH2()`, or `VaryingCoefficients()` for the exact integral;
    `prediction`, `DataPrediction()` or `NoisePrediction()`; `correction`, `UniC()` or `NoCorrection()`; `start` and `ending` as in
    `AbstractMultistep`.
    """

    interpolated: int = eqx.field(static=True)
    coefficients: AbstractLinearTerm
    predicted: AbstractPrediction
    corrector: AbstractCorrection
    start: AbstractStart
    ending: AbstractEnding

    def __init__(
        self,
        order: int = 2,
        coefficients: AbstractLinearTerm = BH2(),
        prediction: AbstractPrediction = DataPrediction(),
        *,
        correction: AbstractCorrection = UniC(),
        start: AbstractStart = RungeKuttaStart(),
        ending: AbstractEnding = FullOrder(),
    ):
        self.interpolated = check_order(order, MOST_POINTS)
        self.coefficients, self.predicted, self.corrector = coefficients, prediction, correction
        self.start, self.ending = start, ending

    def __check_init__(self):
        check_instance(AbstractLinearTerm, coefficients=self.coefficients)
        check_instance(AbstractPrediction, prediction=self.predicted)
        check_instance(AbstractCorrection, correction=self.corrector)

    def points(self) -> int:
        return self.interpolated

    def prediction(self) -> AbstractPrediction:
        return self.predicted

    def variable(self) -> AbstractVariable:
        return HalfLogSNR()

    def linear_term(self) -> AbstractLinearTerm:
        return self.coefficients

    def correction(self) -> AbstractCorrection:
        return self.corrector
