from typing import Any, ClassVar

import equinox as eqx

from sdelab._broadcast import expand_right
from sdelab._checks import check_instance
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess
from sdelab.solvers.base import AbstractReverseSolver, Interval, Step
from sdelab.solvers.discretization import AbstractDiscretization, Transition


class ReverseDiffusion(AbstractReverseSolver):
    r"""Reverse diffusion sampling: the discretised forward step $x + f(x) + G z$, reversed,
    $x_1 = x_0 - f(x_0) + \tfrac12 (1 + c^2) G^2 s(x_0, t_0) + c\,G z$.

    Weak order 1, one evaluation a step. Song et al. (2021), eq. 46 (appendix E), https://arxiv.org/abs/2011.13456.

    Fields: `discretization`: `Transition()` over the interval (any affine process, the default); the published `DDPM`,
    `SMLD` and `EulerSteps`.
    """

    discretization: AbstractDiscretization = eqx.field(default_factory=Transition)
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_instance(AbstractDiscretization, discretization=self.discretization)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        f, G = self.discretization.forward(process.sde, x, interval)
        weight = expand_right(process.score_weight() * G**2, x)
        x_mean = x - f + weight * process.evaluate(x, interval.t0)
        return Step(x_mean + expand_right(process.noise_level() * G, x) * interval.noise[0], x_mean)

    def claimed_order(self) -> int | None:
        return 1 if isinstance(self.discretization, Transition) else None

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1
