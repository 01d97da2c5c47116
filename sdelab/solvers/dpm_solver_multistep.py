import equinox as eqx

from sdelab.solvers.correction import AbstractCorrection, NoCorrection
from sdelab.solvers.history import AbstractEnding, AbstractStart, FullOrder, RungeKuttaStart
from sdelab.solvers.multistep import AbstractMultistep
from sdelab.solvers.newton import BH2, AbstractLinearTerm
from sdelab.solvers.prediction import AbstractPrediction, DataPrediction, NoisePrediction
from sdelab.solvers.variable import AbstractVariable, HalfLogSNR


class AbstractDPMSolverMultistep(AbstractMultistep):
    r"""DPM-Solver(++) multistep: polynomials in $\lambda$, and for steps of second order the weight of UniPC's `BH2`."""

    def variable(self) -> AbstractVariable:
        return HalfLogSNR()

    def linear_term(self) -> AbstractLinearTerm:
        return BH2()

    def correction(self) -> AbstractCorrection:
        return NoCorrection()


class DPMSolver2M(AbstractDPMSolverMultistep):
    r"""DPM-Solver, multistep, of order 2 in the predicted noise; one evaluation a step.

    $x_1 = \frac{\alpha_1}{\alpha_0} x_0 - \sigma_1 (e^h - 1) [(1 + \frac{1}{2r}) \epsilon_0 - \frac{1}{2r} \epsilon_{-1}]$ with
    $h = \lambda_1 - \lambda_0$, $r = h_{-1}/h$: `DPMSolverPlusPlus2M` for noise prediction, as in the code of Lu et al. (2022),
    https://github.com/LuChengTHU/dpm-solver.

    Fields: `start` and `ending` as in `AbstractMultistep`; both starts are the same here.
    """

    start: AbstractStart = eqx.field(default_factory=RungeKuttaStart)
    ending: AbstractEnding = eqx.field(default_factory=FullOrder)

    def points(self) -> int:
        return 2

    def prediction(self) -> AbstractPrediction:
        return NoisePrediction()


class DPMSolver3M(AbstractDPMSolverMultistep):
    r"""DPM-Solver, multistep, of order 3 in the predicted noise: `ExponentialAdamsBashforth(3, NoisePrediction())`.

    One evaluation a step, and one more to start. The published code (https://github.com/LuChengTHU/dpm-solver) halves the
    term of the second difference and is of order 2. A step of second order, in a published start or end, is `DPMSolver2M`'s.

    Fields: `start` and `ending` as in `AbstractMultistep`.
    """

    start: AbstractStart = eqx.field(default_factory=RungeKuttaStart)
    ending: AbstractEnding = eqx.field(default_factory=FullOrder)

    def points(self) -> int:
        return 3

    def prediction(self) -> AbstractPrediction:
        return NoisePrediction()


class DPMSolverPlusPlus2M(AbstractDPMSolverMultistep):
    r"""DPM-Solver++(2M), of order 2 in the predicted data; one evaluation a step.

    $x_1 = \frac{\sigma_1}{\sigma_0} x_0 - \alpha_1 (e^{-h} - 1) [(1 + \frac{1}{2r}) D_0 - \frac{1}{2r} D_{-1}]$ with
    $h = \lambda_1 - \lambda_0$, $r = h_{-1}/h$. Lu et al. (2022), algorithm 2, https://arxiv.org/abs/2211.01095.

    Fields: `start` and `ending` as in `AbstractMultistep`; both starts are the same here.
    """

    start: AbstractStart = eqx.field(default_factory=RungeKuttaStart)
    ending: AbstractEnding = eqx.field(default_factory=FullOrder)

    def points(self) -> int:
        return 2

    def prediction(self) -> AbstractPrediction:
        return DataPrediction()


class DPMSolverPlusPlus3M(AbstractDPMSolverMultistep):
    r"""DPM-Solver++(3M), truly of order 3 in the predicted data: `ExponentialAdamsBashforth(3)`.

    One evaluation a step, and one more to start. The published code (https://github.com/LuChengTHU/dpm-solver, and those that
    follow it) halves the term of the second difference and is of order 2. A step of second order, in a published start or
    end, is `DPMSolverPlusPlus2M`'s.

    Fields: `start` and `ending` as in `AbstractMultistep`.
    """

    start: AbstractStart = eqx.field(default_factory=RungeKuttaStart)
    ending: AbstractEnding = eqx.field(default_factory=FullOrder)

    def points(self) -> int:
        return 3

    def prediction(self) -> AbstractPrediction:
        return DataPrediction()
