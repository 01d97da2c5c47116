import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import check_instance, is_concrete
from sdelab._typing import Scalar, State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.combination import Combination, NoisyCombination
from sdelab.solvers.discretization import DDPM, SMLD, snr_ratio, table_index


class AbstractAncestralVariance(eqx.Module):
    r"""The variance of an ancestral step, as a multiple of the exact posterior's $\tilde\beta$."""

    @abc.abstractmethod
    def std(self, sigma0: Scalar, sigma1: Scalar, fraction: Scalar) -> Float[Array, ""]:
        r"""Standard deviation; `fraction` is $1 - \mathrm{SNR}_0/\mathrm{SNR}_1$, the share of new noise in $\sigma_0^2$."""


class PosteriorVariance(AbstractAncestralVariance):
    r"""$\tilde\beta = \sigma_1^2 (1 - \mathrm{SNR}_0/\mathrm{SNR}_1)$, exact where the data are a point. DDPM eq. 7."""

    def std(self, sigma0: Scalar, sigma1: Scalar, fraction: Scalar) -> Float[Array, ""]:
        return sigma1 * jnp.sqrt(fraction)


class ForwardVariance(AbstractAncestralVariance):
    r"""$\beta = \sigma_0^2 (1 - \mathrm{SNR}_0/\mathrm{SNR}_1)$, the variance of the forward step; exact for data $N(0, I)$
    under a variance-preserving process. Ho et al. (2020), section 3.2, https://arxiv.org/abs/2006.11239."""

    def std(self, sigma0: Scalar, sigma1: Scalar, fraction: Scalar) -> Float[Array, ""]:
        return sigma0 * jnp.sqrt(fraction)


class Ancestral(AbstractReverseSolver):
    r"""Ancestral sampling by the exact posterior step $p(x_1 \mid x_0, x_{data} = D)$ of any affine process.

    With $r = \mathrm{SNR}_0/\mathrm{SNR}_1$ and the denoised $D = E[x_{data} \mid x_0]$:
    $x_1 = r \frac{\alpha_1}{\alpha_0} x_0 + \alpha_1 (1 - r) D + \mathrm{std}\cdot z$. Weak order 1, one evaluation a step; a
    grid may end at t = 0. For the VP process this is Ho et al. (2020), eq. 6 and 7, https://arxiv.org/abs/2006.11239;
    Kingma et al. (2021), appendix A.2, https://arxiv.org/abs/2107.00630, for the general one.
    The published steps of score_sde are `AncestralDDPM` and `AncestralSMLD`.

    Fields: `variance`: `PosteriorVariance()` (the default) or `ForwardVariance()`.
    """

    variance: AbstractAncestralVariance = eqx.field(default_factory=PosteriorVariance)
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_instance(AbstractAncestralVariance, variance=self.variance)

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> NoisyCombination:
        sde, t0, t1 = require_affine(process.sde, "Ancestral"), interval.t0, interval.t1
        ratio, fraction = snr_ratio(sde, t0, t1)
        mean = Combination(ratio * sde.alpha(t1) / sde.alpha(t0), (sde.alpha(t1) * fraction,))
        return NoisyCombination(mean, self.variance.std(sde.sigma(t0), sde.sigma(t1), fraction))

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        step = self.numbers_of(process, interval)
        return step(x, [process.denoise(x, interval.t0)], interval.noise[0])

    def check(self, process: AbstractReverseProcess) -> None:
        check_ancestral(type(self).__name__, process)
        require_affine(process.sde, "Ancestral")

    def claimed_order(self) -> int | None:
        return 1

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1


class AncestralDDPM(AbstractReverseSolver):
    r"""DDPM's step as score_sde takes it: $x_1 = (x + \beta_i s)/\sqrt{1 - \beta_i} + \sqrt{\beta_i} z$, from the `DDPM` table.

    Its variance is $\beta$, not $\tilde\beta$. One evaluation a step; the grid's spacing is not used beyond the index.
    Song et al. (2021), eq. 4, https://arxiv.org/abs/2011.13456.
    """

    table: DDPM = eqx.field(default_factory=DDPM)
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_instance(DDPM, table=self.table)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        beta = self.table.beta(table_index(interval.t0, self.table.n)).astype(x.dtype)
        x_mean = (x + beta * process.evaluate(x, interval.t0)) / jnp.sqrt(1.0 - beta)
        return Step(x_mean + jnp.sqrt(beta) * interval.noise[0], x_mean)

    def check(self, process: AbstractReverseProcess) -> None:
        check_ancestral(type(self).__name__, process)
        log_alpha = 0.5 * jnp.sum(jnp.log1p(-self.table.beta(jnp.arange(self.table.n))))
        check_table("AncestralDDPM", process, log_alpha, 0.5 * jnp.log1p(-jnp.exp(2.0 * log_alpha)))

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1


class AncestralSMLD(AbstractReverseSolver):
    r"""SMLD's step as score_sde takes it, from the `SMLD` table:
    $x_1 = x + (\sigma_i^2 - \sigma_{i-1}^2) s + \sqrt{\sigma_{i-1}^2 (\sigma_i^2 - \sigma_{i-1}^2)/\sigma_i^2}\,z$.

    One evaluation a step; the grid's spacing is not used beyond the index.
    Song et al. (2021), eq. 47 (appendix F), https://arxiv.org/abs/2011.13456.
    """

    table: SMLD = eqx.field(default_factory=SMLD)
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_instance(SMLD, table=self.table)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        index = table_index(interval.t0, self.table.n)
        high, low = (self.table.sigma(i).astype(x.dtype) ** 2 for i in (index, index - 1))
        x_mean = x + (high - low) * process.evaluate(x, interval.t0)
        return Step(x_mean + jnp.sqrt(low * (high - low) / high) * interval.noise[0], x_mean)

    def check(self, process: AbstractReverseProcess) -> None:
        check_ancestral(type(self).__name__, process)
        check_table("AncestralSMLD", process, 0.0, jnp.log(self.table.sigma_max))

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps

    def draws(self) -> int:
        return 1


def check_ancestral(name: str, process: AbstractReverseProcess) -> None:
    check_kind(name, "stochastic", process)
    level = process.noise_level()
    if is_concrete(level) and float(level) != 1.0:
        raise ValueError(
            f"stochasticity = {level} is not accepted by {name}, whose posterior step has stochasticity 1; accepted: 1, or "
            "the solver StochasticDDIM, for any stochasticity in [0, 1]."
        )


def check_table(name: str, process: AbstractReverseProcess, log_alpha: Scalar, log_sigma: Scalar) -> None:
    """A table is indexed by t (N - 1), and must be of the process's own kind: its last entry is the kernel at t = 1.

    A coarse table differs from the process (by a factor e^1.8 in alpha with 30 steps), another process by far more.
    """
    sde = require_affine(process.sde, name)
    if sde.t_max != 1.0:
        raise ValueError(f"t_max = {sde.t_max} is not accepted by {name}, whose table spans [0, 1].")
    if not is_concrete(sde, log_alpha, log_sigma):
        return
    gap = max(abs(float(jnp.log(sde.alpha(1.0)) - log_alpha)), abs(float(jnp.log(sde.sigma(1.0)) - log_sigma)))
    if gap > 3.0:
        raise ValueError(
            f"sde = {sde!r} is not accepted by {name}: at t = 1 the table has log alpha = {float(log_alpha):.2f} and log "
            f"sigma = {float(log_sigma):.2f}; accepted: the process that the table discretises."
        )
