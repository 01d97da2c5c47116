from typing import Any, ClassVar

import jax.numpy as jnp

from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess
from sdelab.solvers.base import AbstractReverseSolver, Interval, Step


class EulerMaruyama(AbstractReverseSolver):
    r"""Euler–Maruyama: $x_1 = x_0 - h\,[f - \tfrac12 (1 + c^2) g^2 s](x_0, t_0) + c\,g(t_0) \sqrt h\,z$, $h = t_0 - t_1$.

    Weak order 1, strong order 1 on additive noise, one evaluation a step; any process, with or without a kernel.
    Song et al. (2021), section 4.1, https://arxiv.org/abs/2011.13456, with the interval's own length: the published
    code steps by 1/N, which is `ReverseDiffusion(EulerSteps(N))`.
    """

    kind: ClassVar = "stochastic"

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        t0, h = interval.t0, interval.t0 - interval.t1
        x_mean = x - h * process.drift(x, t0)
        return Step(x_mean + process.diffusion(t0) * jnp.sqrt(h) * interval.noise[0], x_mean)

    def claimed_order(self) -> int | None:
        return 1

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1
