r"""DPM-Solver, single steps in the predicted noise: Lu et al. (2022), https://arxiv.org/abs/2206.00927.

With $\lambda = \log(\alpha/\sigma)$ and $h = \lambda_1 - \lambda_0$ the exact solution is $\frac{\alpha_1}{\alpha_0} x_0$ less an
integral of $\epsilon$; inner times $s_i$ lie at the fractions $r_i$ of the interval in $\lambda$.
"""

from collections.abc import Sequence

import equinox as eqx

from sdelab._checks import check_instance
from sdelab.solvers.combination import Combination
from sdelab.solvers.ddim import DDIM
from sdelab.solvers.history import through
from sdelab.solvers.newton import BH2, AbstractLinearTerm
from sdelab.solvers.prediction import AbstractPrediction, NoisePrediction, ScalarArray, Span
from sdelab.solvers.singlestep import (
    AbstractLastPolynomial,
    AbstractSinglestep,
    FirstAndLast,
    T,
    check_fractions,
    second_order,
    third_order_where,
)

DPMSolver1 = DDIM
"""DPM-Solver-1 is DDIM: Lu et al. (2022), section 4.1."""


class DPMSolver2(AbstractSinglestep):
    r"""DPM-Solver-2, one inner time: order 2, two evaluations a step.

    $u = \frac{\alpha_s}{\alpha_0} x_0 - \sigma_s (e^{r_1 h} - 1) \epsilon_0$,
    $x_1 = \frac{\alpha_1}{\alpha_0} x_0 - \sigma_1 (e^h - 1) [\epsilon_0 + \frac{1}{2 r_1} (\epsilon(u, s) - \epsilon_0)]$.

    A last step to t = 0 is `DDIM`'s, one evaluation. Lu et al. (2022), algorithm 1, and the appendix for other
    $r_1$, https://arxiv.org/abs/2206.00927. On the process `EDM` it is what k-diffusion calls DPM2.

    Fields: `r1`, in (0, 1]; `linear_term`: `BH2()` as published (the default), or `VaryingCoefficients()`, the exact integral of
    the line through both ("taylor" in the code of the paper).
    """

    r1: float = eqx.field(default=1 / 2, static=True)
    linear_term: AbstractLinearTerm = eqx.field(default_factory=BH2)

    def __check_init__(self):
        check_fractions(r1=self.r1)
        check_instance(AbstractLinearTerm, linear_term=self.linear_term)

    def prediction(self) -> AbstractPrediction:
        return NoisePrediction()

    def conclusion(self, here: Span, levels: Sequence[ScalarArray]) -> Combination:
        return second_order(self.prediction(), self.linear_term, here, levels)

    def inner_fractions(self) -> tuple[float, ...]:
        return (self.r1,)

    def claimed_order(self) -> int | None:
        return 2


class DPMSolver3(AbstractSinglestep):
    r"""DPM-Solver-3, two inner times: order 3, three evaluations a step.

    With $\epsilon_i = \epsilon(u_i, s_i)$ and $\varphi(z) = (e^z - 1)/z$:
    $u_1 = \frac{\alpha_{s_1}}{\alpha_0} x_0 - \sigma_{s_1} (e^{r_1 h} - 1) \epsilon_0$,
    $u_2 = \frac{\alpha_{s_2}}{\alpha_0} x_0 - \sigma_{s_2} [(e^{r_2 h} - 1) \epsilon_0
    + \frac{r_2}{r_1} (\varphi(r_2 h) - 1) (\epsilon_1 - \epsilon_0)]$,
    $x_1 = \frac{\alpha_1}{\alpha_0} x_0 - \sigma_1 [(e^h - 1) \epsilon_0 + \frac{1}{r_2} (\varphi(h) - 1) (\epsilon_2 - \epsilon_0)]$.

    A last step to t = 0 is `DDIM`'s, one evaluation. Lu et al. (2022), algorithm 2, https://arxiv.org/abs/2206.00927.

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
        return NoisePrediction()

    def conclusion(self, here: Span, levels: Sequence[ScalarArray]) -> Combination:
        return through(self.prediction(), here, levels)

    def chosen(self, points: Sequence[T]) -> Sequence[T]:
        return self.last.choose(points)

    def inner_fractions(self) -> tuple[float, ...]:
        return self.r1, self.r2

    def claimed_order(self) -> int | None:
        return third_order_where(self.r2)
