from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import is_concrete
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.combination import Combination, NoisyCombination
from sdelab.solvers.prediction import span


class DDIM(AbstractReverseSolver):
    r"""DDIM: the exact first-order step of the probability flow of any affine process, one evaluation a step.

    With $D = E[x_{data} \mid x_0]$, $\epsilon = (x_0 - \alpha_0 D)/\sigma_0$ and $h = \lambda_1 - \lambda_0$ in
    $\lambda = \log(\alpha/\sigma)$,

    $x_1 = \alpha_1 D + \sigma_1 \epsilon = \frac{\sigma_1}{\sigma_0} x_0 + \alpha_1 (1 - e^{-h}) D$.

    It is Euler's method in $\sigma/\alpha$ (EDM's and k-diffusion's "Euler"), and DPM-Solver-1, in the predicted noise as in
    the predicted data: it has the name `DPMSolver1` too. Order 1. A grid may end at t = 0, where $x_1 = D$. Song et al.
    (2020), eq. 12 with $\sigma_t = 0$, https://arxiv.org/abs/2010.02502; Lu et al. (2022), section 4.1,
    https://arxiv.org/abs/2206.00927.
    """

    kind: ClassVar = "deterministic"

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> Combination:
        here = span(require_affine(process.sde, "DDIM"), interval.t0, interval.t1)
        weight = jnp.where(here.to_data, here.alpha1, -here.alpha1 * jnp.expm1(-here.h))
        return Combination(here.sigma1 / here.sigma0, (weight,))

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        step = self.numbers_of(process, interval)
        x = step(x, [process.denoise(x, interval.t0)])
        return Step(x, x)

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind("DDIM", self.kind, process)
        require_affine(process.sde, "DDIM")

    def claimed_order(self) -> int | None:
        return 1

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 0


class StochasticDDIM(AbstractReverseSolver):
    r"""DDIM's family of samplers between the deterministic one and the ancestral one, one evaluation a step.

    The stochasticity of the `ReverseSDE` *is* the paper's $\eta$, in [0, 1]. With the variance of the posterior
    $\tilde\beta = \sigma_1^2 (1 - \mathrm{SNR}_0/\mathrm{SNR}_1)$, and $D$, $\epsilon$ as for `DDIM`,

    $x_1 = \alpha_1 D + \sqrt{\sigma_1^2 - \eta^2 \tilde\beta}\,\epsilon + \eta \sqrt{\tilde\beta}\,z$.

    At $\eta = 0$ it is `DDIM`, at $\eta = 1$ `Ancestral` with the posterior's variance. Weak order 1, of the reverse SDE of
    stochasticity $\eta$. A grid may end at t = 0, where $x_1 = D$. Song et al. (2020), eq. 12 and 16,
    https://arxiv.org/abs/2010.02502.
    """

    kind: ClassVar = "stochastic"

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> NoisyCombination:
        here = span(require_affine(process.sde, "StochasticDDIM"), interval.t0, interval.t1)
        eta = jnp.asarray(process.noise_level(), here.h.dtype)
        log_kept = _log_kept(eta, here.h)
        scale = here.sigma1 / here.sigma0 * jnp.exp(log_kept)
        weight = jnp.where(here.to_data, here.alpha1, -here.alpha1 * jnp.expm1(log_kept - here.h))
        std = here.sigma1 * eta * jnp.sqrt(-jnp.expm1(-2.0 * here.h))
        return NoisyCombination(Combination(scale, (weight,)), std)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        step = self.numbers_of(process, interval)
        return step(x, [process.denoise(x, interval.t0)], interval.noise[0])

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind("StochasticDDIM", self.kind, process)
        require_affine(process.sde, "StochasticDDIM")
        eta = process.noise_level()
        if is_concrete(eta) and not 0.0 <= float(eta) <= 1.0:
            raise ValueError(
                f"stochasticity = {eta} is not accepted by StochasticDDIM; it is eta, and must be in [0, 1]."
            )

    def claimed_order(self) -> int | None:
        return 1

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1


def _log_kept(eta: Float[Array, ""], h: Float[Array, ""]) -> Float[Array, ""]:
    r"""$\log \sqrt{1 - \eta^2 (1 - e^{-2h})}$, the part of the standard deviation that is not drawn anew.

    To the last digit for the smallest steps, and, where $\eta = 1$, with finite derivatives for the largest.
    """
    small = jnp.log1p(eta**2 * jnp.expm1(-2.0 * jnp.minimum(h, 1.0)))
    large = jnp.maximum(h, 1.0)
    kept = 1.0 - eta**2 + eta**2 * jnp.exp(-2.0 * large)
    return 0.5 * jnp.where(h < 1.0, small, jnp.log(jnp.maximum(kept, jnp.finfo(h.dtype).tiny)))
