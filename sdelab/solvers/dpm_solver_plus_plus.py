r"""DPM-Solver++, single steps in the predicted data: Lu et al. (2022), https://arxiv.org/abs/2211.01095.

With $\lambda = \log(\alpha/\sigma)$ and $h = \lambda_1 - \lambda_0$ the exact solution is $\frac{\sigma_1}{\sigma_0} x_0$ and an
integral of $D$; inner times $s_i$ lie at the fractions $r_i$ of the interval in $\lambda$. The multistep methods have
files of their own.
"""

from collections.abc import Sequence

import equinox as eqx

from sdelab._checks import check_instance
from sdelab.solvers.combination import Combination
from sdelab.solvers.history import through
from sdelab.solvers.newton import BH2, AbstractLinearTerm
from sdelab.solvers.prediction import AbstractPrediction, DataPrediction, ScalarArray, Span
from sdelab.solvers.singlestep import (
    AbstractLastPolynomial,
    AbstractSinglestep,
    FirstAndLast,
    T,
    check_fractions,
    second_order,
    third_order_where,
)


class DPMSolverPlusPlus2S(AbstractSinglestep):
    r"""DPM-Solver++(2S), one inner time: order 2, two evaluations a step.

    $u = \frac{\sigma_s}{\sigma_0} x_0 - \alpha_s (e^{-r_1 h} - 1) D_0$,
    $x_1 = \frac{\sigma_1}{\sigma_0} x_0 - \alpha_1 (e^{-h} - 1) [(1 - \frac{1}{2 r_1}) D_0 + \frac{1}{2 r_1} D(u, s)]$.

    A last step to t = 0 is `DDIM`'s, $x_1 = D_0$, one evaluation. Lu et al. (2022), algorithm 1,
    https://arxiv.org/abs/2211.01095.

    Fields: `r1`, in (0, 1]; `linear_term`: `BH2()` as published (the default), or `VaryingCoefficients()`, the exact integral of
    the line through both ("taylor" in the code of the paper).
    """

    r1: float = eqx.field(default=1 / 2, static=True)
    linear_term: AbstractLinearTerm = eqx.field(default_factory=BH2)

    def __check_init__(self):
        check_fractions(r1=self.r1)
        check_instance(AbstractLinearTerm, linear_term=self.linear_term)

    def prediction(self) -> AbstractPrediction:
        return DataPrediction()

    def conclusion(self, here: Span, levels: Sequence[ScalarArray]) -> Combination:
        return second_order(self.prediction(), self.linear_term, here, levels)

    def inner_fractions(self) -> tuple[float, ...]:
        return (self.r1,)

    def claimed_order(self) -> int | None:
        return 2


class DPMSolverPlusPlus3S(AbstractSinglestep):
    r"""DPM-Solver-3 in the predicted data, two inner times: order 3, three evaluations a step.

    With $D_i = D(u_i, s_i)$ and $\varphi(z) = (1 - e^{-z})/z$:
    $u_1 = \frac{\sigma_{s_1}}{\sigma_0} x_0 + \alpha_{s_1} (1 - e^{-r_1 h}) D_0$,
    $u_2 = \frac{\sigma_{s_2}}{\sigma_0} x_0 + \alpha_{s_2} [(1 - e^{-r_2 h}) D_0 + \frac{r_2}{r_1} (1 - \varphi(r_2 h)) (D_1 - D_0)]$,
    $x_1 = \frac{\sigma_1}{\sigma_0} x_0 + \alpha_1 [(1 - e^{-h}) D_0 + \frac{1}{r_2} (1 - \varphi(h)) (D_2 - D_0)]$.

    A last step to t = 0 is `DDIM`'s, $x_1 = D_0$, one evaluation. The single-step method of order 3 of the code of Lu et al.
    (2022), https://github.com/LuChengTHU/dpm-solver.

    Fields: `r1` < `r2`, in (0, 1], of order 3 where `r2` = 2/3 and of order 2 elsewhere; `last`: `FirstAndLast()` as published (the
    default), or `AllPoints()`.
    """

    r1: float = eqx.field(default=1 / 3, static=True)
    r2: float = eqx.field(default=2 / 3, static=True)
    last: AbstractLastPolynomial = eqx.field(default_factory=FirstAndLast)

    def __check_init__(self):
        check_fractions(r1=self.r1, r2=self.r2)
        check_instance(AbstractLastPolynomial, last=self.last)

    def prediction(self) -> AbstractPrediction:
        return DataPrediction()

    def conclusion(self, here: Span, levels: Sequence[ScalarArray]) -> Combination:
        return through(self.prediction(), here, levels)

    def chosen(self, points: Sequence[T]) -> Sequence[T]:
        return self.last.choose(points)

    def inner_fractions(self) -> tuple[float, ...]:
        return self.r1, self.r2

    def claimed_order(self) -> int | None:
        return third_order_where(self.r2)
