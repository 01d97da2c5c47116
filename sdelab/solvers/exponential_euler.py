import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import check_instance
from sdelab._numerics import safe_sqrt
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.combination import Combination, NoisyCombination
from sdelab.solvers.discretization import snr_ratio


class AbstractFrozen(eqx.Module):
    r"""What of the score is held constant over a step, with $\rho = \sigma/\alpha$."""

    @abc.abstractmethod
    def share(self, ratio: Float[Array, ""], fraction: Float[Array, ""]) -> Float[Array, ""]:
        r"""The integral of $\alpha s\,d\rho^2$ over the step, in units of its value for $s_0$ frozen from $\rho = 0$ on.

        `ratio` is $\rho_1^2/\rho_0^2$, `fraction` is one minus it.
        """


class FrozenScore(AbstractFrozen):
    r"""$\alpha s$, the score of $x/\alpha$: exact for the mean at stochasticity 1, where the data are a point."""

    def share(self, ratio: Float[Array, ""], fraction: Float[Array, ""]) -> Float[Array, ""]:
        return fraction


class FrozenNoise(AbstractFrozen):
    r"""$\epsilon = -\sigma s$, the predicted noise: Euler's step in $\rho$ and not in $\rho^2$; DDIM at stochasticity 0."""

    def share(self, ratio: Float[Array, ""], fraction: Float[Array, ""]) -> Float[Array, ""]:
        return 2.0 * fraction / (1.0 + safe_sqrt(ratio))


class ExponentialEuler(AbstractReverseSolver):
    r"""Exponential Euler–Maruyama: the linear part of the drift and the noise exactly, the score frozen; one evaluation a step.

    In $y = x/\alpha$ the drift of an affine process has no linear part: with $\rho = \sigma/\alpha$ the reverse SDE is
    $dy = -\tfrac12 (1 + c^2)\,\alpha s\,d\rho^2 + c\,d\bar w_{\rho^2}$, where $\alpha s$ is the score of $y$. With that frozen

    $x_1 = \frac{\alpha_1}{\alpha_0} [x_0 + \tfrac12 (1 + c^2) G^2 s(x_0, t_0) + c\,G z]$,
    $G^2 = \sigma_0^2 (1 - \mathrm{SNR}_0/\mathrm{SNR}_1)$,

    whose variance is that of the noise between $t_1$ and $t_0$. Weak order 1, for every stochasticity $c \ge 0$; exact where the
    score is zero, however long the step. At $c = 1$ its mean is that of `Ancestral`. A grid may end at t = 0, where the noise of
    the last step is still in the sample: `NoiselessPredictor` leaves it out.
    Exponential integrators: Zhang and Chen (2022), section 3.1, https://arxiv.org/abs/2204.13902.

    Fields: `frozen`: `FrozenScore()` (the default), or `FrozenNoise()`, the better one at small stochasticity.
    """

    frozen: AbstractFrozen = eqx.field(default_factory=FrozenScore)
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_instance(AbstractFrozen, frozen=self.frozen)

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> NoisyCombination:
        sde, t0, t1 = require_affine(process.sde, "ExponentialEuler"), interval.t0, interval.t1
        scale, sigma0 = sde.alpha(t1) / sde.alpha(t0), sde.sigma(t0)
        ratio, fraction = snr_ratio(sde, t0, t1)
        weight = process.score_weight() * sigma0**2 * self.frozen.share(ratio, fraction)
        std = scale * process.noise_level() * sigma0 * jnp.sqrt(fraction)
        return NoisyCombination(Combination(scale, (scale * weight,)), std)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        step = self.numbers_of(process, interval)
        return step(x, [process.evaluate(x, interval.t0)], interval.noise[0])

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind("ExponentialEuler", "stochastic", process)
        require_affine(process.sde, "ExponentialEuler")

    def claimed_order(self) -> int | None:
        return 1

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1
