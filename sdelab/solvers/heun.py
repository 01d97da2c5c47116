from typing import Any, ClassVar

import jax

from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, Step, check_kind


class Heun(AbstractReverseSolver):
    r"""EDM's Heun method for the probability flow of any affine process: order 2, two evaluations a step.

    In $y = x/\alpha$ and $\tilde\sigma = \sigma/\alpha$ the flow is $dy/d\tilde\sigma = \epsilon(x, t) = -\sigma s$; a step is the
    trapezoid rule with an Euler predictor. A last step to $\tilde\sigma = 0$ is Euler's, $y_1 = D(x_0, t_0)$, one evaluation:
    nothing is divided by $\sigma$. Karras et al. (2022), algorithm 1, https://arxiv.org/abs/2206.00364.
    """

    kind: ClassVar = "deterministic"

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        sde, t0, t1 = require_affine(process.sde, "Heun"), interval.t0, interval.t1
        alpha0, alpha1 = sde.alpha(t0), sde.alpha(t1)
        h = sde.sigma(t1) / alpha1 - sde.sigma(t0) / alpha0
        eps0 = process.noise(x, t0)
        euler = alpha1 * (x / alpha0 + h * eps0)

        def trapezoid(euler: State) -> State:
            return euler + alpha1 * 0.5 * h * (process.noise(euler, t1) - eps0)

        x = jax.lax.cond(sde.sigma(t1) > 0.0, trapezoid, lambda euler: euler, euler)
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
