r"""DPM-Solver++ for the reverse SDE of any stochasticity $c \ge 0$.

With $\lambda = \log(\alpha/\sigma)$, $h = \lambda_1 - \lambda_0$, $u = \lambda - \lambda_0$ and $k = 1 + c^2$, the reverse SDE of an
affine process has the exact solution

$x_1 = \frac{\sigma_1}{\sigma_0} e^{-c^2 h} x_0 + \alpha_1 \int_0^h k\,e^{-k (h - u)} D(u)\,du + \sigma_1 \sqrt{1 - e^{-2 c^2 h}}\,z$,

$D = E[x_{data} \mid x_t]$ along the path. At $c = 1$ it is that of Lu et al. (2022), section 5, https://arxiv.org/abs/2211.01095, at
$c = 0$ that of the probability flow. A method replaces $D$ by a polynomial in $u$.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp

from sdelab._checks import check_instance
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, Step, check_kind
from sdelab.solvers.exponential import phis
from sdelab.solvers.newton import BH2, AbstractLinearTerm
from sdelab.solvers.prediction import ScalarArray, Span, span


class Previous(eqx.Module):
    r"""What a two-step method remembers: the last prediction of the data, and the length of the last step in $\lambda$."""

    D: State
    h: ScalarArray


class SDEDPMSolverPlusPlus1(AbstractReverseSolver):
    r"""SDE-DPM-Solver++(1): exact but for $D$, which is frozen; one evaluation a step.

    $x_1 = \frac{\sigma_1}{\sigma_0} e^{-c^2 h} x_0 + \alpha_1 (1 - e^{-(1 + c^2) h}) D_0 + \sigma_1 \sqrt{1 - e^{-2 c^2 h}}\,z$.

    Weak order 1 for every stochasticity $c$; at $c = 0$ it is DDIM, at $c = 1$ `Ancestral` with the posterior's variance.
    Where the data are a point it is exact. A grid may end at t = 0.
    Lu et al. (2022), section 5, https://arxiv.org/abs/2211.01095.
    """

    kind: ClassVar = "stochastic"

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        here = span(require_affine(process.sde, type(self).__name__), interval.t0, interval.t1)
        scale, weights, std = coefficients(process, here)
        x_mean = scale * x + weights[0] * process.denoise(x, interval.t0)
        return Step(x_mean + std * interval.noise[0], x_mean)

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind(type(self).__name__, self.kind, process)
        require_affine(process.sde, type(self).__name__)

    def claimed_order(self) -> int | None:
        return 1

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1


class SDEDPMSolverPlusPlus2M(AbstractReverseSolver):
    r"""SDE-DPM-Solver++(2M): $D$ is extrapolated from the last two predictions; one evaluation a step.

    $x_1 = \frac{\sigma_1}{\sigma_0} e^{-c^2 h} x_0 + \alpha_1 (1 - e^{-(1 + c^2) h}) [D_0 + \frac{1}{2r} (D_0 - D_{-1})]
    + \sigma_1 \sqrt{1 - e^{-2 c^2 h}}\,z$
    with $r = h_{-1}/h$. The first step is `SDEDPMSolverPlusPlus1`'s, which keeps the order, as is a last one to t = 0.

    Weak order 2 for every stochasticity $c$. The slope's noise is that of the step before, where a Taylor scheme of weak order 2
    has that of this one; the noise is additive, and what comes one step late is not lost. At $c = 0$ it is DPM-Solver++(2M).
    Lu et al. (2022), section 5, https://arxiv.org/abs/2211.01095.

    Fields: `linear_term`: `BH2()` as published (the default), or `VaryingCoefficients()`, the exact integral of the linear
    extrapolation ("heun" in https://github.com/crowsonkb/k-diffusion, whose `eta` is $c^2$).
    """

    linear_term: AbstractLinearTerm = eqx.field(default_factory=BH2)
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_instance(AbstractLinearTerm, linear_term=self.linear_term)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Previous) -> Step:
        sde = require_affine(process.sde, type(self).__name__)
        here = span(sde, interval.t0, interval.t1)
        scale, weights, std = coefficients(process, here)
        D = process.denoise(x, interval.t0)
        linear = self.linear_term.integral(weights, here.h, here.alpha1 * (1.0 + process.noise_level() ** 2))
        slope = jnp.where(here.to_data | (interval.index == 0), 0.0, linear * here.h / memory.h)
        x_mean = scale * x + (weights[0] + slope) * D - slope * memory.D
        return Step(x_mean + std * interval.noise[0], x_mean, Previous(D, here.h))

    def initial_memory(self, process: AbstractReverseProcess, x: State) -> Previous:
        return Previous(jnp.zeros_like(x), jnp.ones((), jnp.float64 if x.dtype == jnp.float64 else jnp.float32))

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind(type(self).__name__, self.kind, process)
        require_affine(process.sde, type(self).__name__)

    def claimed_order(self) -> int | None:
        return 2

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1


def coefficients(
    process: AbstractReverseProcess, here: Span
) -> tuple[ScalarArray, tuple[ScalarArray, ScalarArray], ScalarArray]:
    r"""The factor of $x_0$; $K_0, K_1$, with $K_j = \alpha_1 \int_0^h k\,e^{-k (h - u)} (u/h)^j du$; the noise's standard deviation.

    Where $\sigma_1 = 0$, $K_0 = \alpha_1$ alone is left. The square root is taken of $(1 - e^{-2 c^2 h})/c^2$, which has derivatives
    at $c = 0$.
    """
    c = jnp.asarray(process.noise_level(), here.h.dtype)
    decay, noise = (1.0 + c**2) * here.h, c**2 * here.h
    scale = here.sigma1 / here.sigma0 * jnp.exp(-noise)
    constant = jnp.where(here.to_data, here.alpha1, -here.alpha1 * jnp.expm1(-decay))
    std = here.sigma1 * c * jnp.sqrt(2.0 * here.h * phis(1, -2.0 * noise)[0])
    return scale, (constant, here.alpha1 * decay * phis(2, -decay)[1]), std
