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
from jaxtyping import Array, Float

from sdelab._checks import check_instance
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.combination import Combination, NoisyCombination
from sdelab.solvers.exponential import half_log_snr, phis
from sdelab.solvers.newton import BH2, AbstractLinearTerm
from sdelab.solvers.prediction import ScalarArray, Span, span


class Previous(eqx.Module):
    """What a two-step method remembers: the last prediction of the data, and the time at which it was made, `(1,)`."""

    D: State
    t: Float[Array, "1"]


class SDEDPMSolverPlusPlus1(AbstractReverseSolver):
    r"""SDE-DPM-Solver++(1): exact but for $D$, which is frozen; one evaluation a step.

    $x_1 = \frac{\sigma_1}{\sigma_0} e^{-c^2 h} x_0 + \alpha_1 (1 - e^{-(1 + c^2) h}) D_0 + \sigma_1 \sqrt{1 - e^{-2 c^2 h}}\,z$.

    Weak order 1 for every stochasticity $c$; at $c = 0$ it is DDIM, at $c = 1$ `Ancestral` with the posterior's variance.
    Where the data are a point it is exact. A grid may end at t = 0.
    Lu et al. (2022), section 5, https://arxiv.org/abs/2211.01095.
    """

    kind: ClassVar = "stochastic"

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> NoisyCombination:
        here = span(require_affine(process.sde, type(self).__name__), interval.t0, interval.t1)
        scale, weights, std = coefficients(process, here)
        return NoisyCombination(Combination(scale, weights[:1]), std)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        step = self.numbers_of(process, interval)
        return step(x, [process.denoise(x, interval.t0)], interval.noise[0])

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

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> NoisyCombination:
        sde = require_affine(process.sde, type(self).__name__)
        here = span(sde, interval.t0, interval.t1)
        scale, weights, std = coefficients(process, here)
        linear = self.linear_term.integral(weights, here.h, here.alpha1 * (1.0 + process.noise_level() ** 2))
        first = interval.index == 0
        length = jnp.where(first, 1.0, here.level0 - half_log_snr(sde, past[0]))  # of the last step
        slope = jnp.where(here.to_data | first, 0.0, linear * here.h / length)
        return NoisyCombination(Combination(scale, (weights[0] + slope, -slope)), std)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Previous) -> Step:
        step = self.numbers_of(process, interval, memory.t)
        D = process.denoise(x, interval.t0)
        return step(x, [D, memory.D], interval.noise[0], Previous(D, interval.t0[None]))

    def remembers(self) -> int:
        return 1

    def initial_memory(self, process: AbstractReverseProcess, x: State) -> Previous:
        dtype = jnp.float64 if x.dtype == jnp.float64 else jnp.float32  # that of the grid
        return Previous(jnp.zeros_like(x), jnp.full((1,), process.sde.t_max, dtype))

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
