from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Bool, Float

from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.combination import Combination


class HeunNumbers(eqx.Module):
    r"""Of a step: Euler's, half the weight of $\epsilon$ in it, and whether it ends where $\sigma = 0$."""

    euler: Combination
    half: Float[Array, ""]
    to_data: Bool[Array, ""]


class Heun(AbstractReverseSolver):
    r"""EDM's Heun method for the probability flow of any affine process: order 2, two evaluations a step.

    In $y = x/\alpha$ and $\tilde\sigma = \sigma/\alpha$ the flow is $dy/d\tilde\sigma = \epsilon(x, t) = -\sigma s$; a step is the
    trapezoid rule with an Euler predictor. A last step to $\tilde\sigma = 0$ is Euler's, $y_1 = D(x_0, t_0)$, one evaluation:
    nothing is divided by $\sigma$. Karras et al. (2022), algorithm 1, https://arxiv.org/abs/2206.00364.
    """

    kind: ClassVar = "deterministic"

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> HeunNumbers:
        sde = require_affine(process.sde, "Heun")
        (alpha0, alpha1), (sigma0, sigma1) = ((f(interval.t0), f(interval.t1)) for f in (sde.alpha, sde.sigma))
        h = alpha1 * (sigma1 / alpha1 - sigma0 / alpha0)
        return HeunNumbers(Combination(alpha1 / alpha0, (h,)), 0.5 * h, sigma1 <= 0.0)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        numbers = self.numbers_of(process, interval)
        eps0 = process.noise(x, interval.t0)
        euler = numbers.euler(x, [eps0])

        def trapezoid(euler: State) -> State:
            return euler + numbers.half * (process.noise(euler, interval.t1) - eps0)

        x = interval.at_data(numbers.to_data, lambda euler: euler, trapezoid, euler)
        return Step(x, x)

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind("Heun", "deterministic", process)
        require_affine(process.sde, "Heun")

    def claimed_order(self) -> int | None:
        return 2

    def evaluations(self, steps: int, to_data: bool) -> int:
        return 2 * steps - (1 if to_data else 0)

    def draws(self) -> int:
        return 0
