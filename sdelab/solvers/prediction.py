r"""What a solver of the flow replaces by a polynomial, the predicted noise or the predicted data, and over which interval.

Both give an exact solution (`sdelab.solvers.exponential`, 1 and 2) of one form, with $\theta = u/h$ from 0 at $t_0$ to 1 at $t_1$:

$x_1 = a\,x_0 + \int_0^1 P(\theta)\,dK(\theta)$, $\quad K_j = \int \theta^j\,dK$.
"""

import abc
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from equinox import AbstractClassVar
from jaxtyping import Array, Bool, Float

from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.exponential import half_log_snr, moments

ScalarArray = Float[Array, ""]


class Span(eqx.Module):
    r"""The kernel and $\lambda$ at both ends of an interval.

    `to_data`: whether $\sigma_1 = 0$. Then $\lambda_1$ is infinite, and a finite number stands in its place.
    """

    t0: ScalarArray
    t1: ScalarArray
    alpha0: ScalarArray
    alpha1: ScalarArray
    sigma0: ScalarArray
    sigma1: ScalarArray
    level0: ScalarArray
    level1: ScalarArray
    to_data: Bool[Array, ""]

    @property
    def h(self) -> ScalarArray:
        r"""$\lambda_1 - \lambda_0$."""
        return self.level1 - self.level0


def span(sde: AbstractAffineSDE, t0: ScalarArray, t1: ScalarArray) -> Span:
    """The interval from `t0` down to `t1`. Its numbers have finite derivatives, where sigma(t1) = 0 too."""
    return spans(sde, t0, [t1])[0]


def spans(sde: AbstractAffineSDE, t0: ScalarArray, ends: Sequence[ScalarArray]) -> list[Span]:
    """The intervals from `t0` down to each of `ends`, their kernels all evaluated together."""
    times = jnp.stack([t0, *ends])
    to_data = (sde.sigma(times) <= 0.0).at[0].set(False)
    safe = jnp.where(to_data, 0.5 * t0, times)
    alpha, sigma, levels = sde.alpha(times), sde.sigma(safe), half_log_snr(sde, safe)
    end_sigma = jnp.where(to_data, 0.0, sigma)
    return [
        Span(t0, t1, alpha[0], alpha[i], sigma[0], end_sigma[i], levels[0], levels[i], to_data[i])
        for i, t1 in enumerate(ends, start=1)
    ]


class AbstractPrediction(eqx.Module):
    """Which of its predictions of the network a solver interpolates."""

    sign: AbstractClassVar[float]

    @abc.abstractmethod
    def predict(self, process: AbstractReverseProcess, x: State, t: ScalarArray) -> State:
        """The prediction at `(x, t)`, one evaluation."""

    @abc.abstractmethod
    def factors(self, span: Span) -> tuple[ScalarArray, ScalarArray]:
        r"""$a$, the factor of $x_0$, and the factor of $\int_0^h e^{s (h - u)} P(u)\,du$, with $s$ the `sign`."""

    @abc.abstractmethod
    def weight_at_data(self, span: Span) -> ScalarArray:
        r"""$K_0$ where $\sigma_1 = 0$: the factor of $P(x_0)$ in the exact step of first order, $x_1 = \alpha_1 D(x_0)$."""

    def moments(self, span: Span, count: int) -> list[ScalarArray]:
        r"""$K_0, \dots, K_{count - 1}$. Where $\sigma_1 = 0$ only $K_0$ has a meaning."""
        scale = self.factors(span)[1]
        first, *others = (m / span.h**j for j, m in enumerate(moments(count, span.h, self.sign)))
        return [jnp.where(span.to_data, self.weight_at_data(span), scale * first), *(scale * m for m in others)]


class DataPrediction(AbstractPrediction):
    r"""$P = E[x_{data} \mid x_t]$, with $a = \sigma_1/\sigma_0$. Lu et al. (2022), proposition 4.1,
    https://arxiv.org/abs/2211.01095."""

    sign: ClassVar = -1.0

    def predict(self, process: AbstractReverseProcess, x: State, t: ScalarArray) -> State:
        return process.denoise(x, t)

    def factors(self, span: Span) -> tuple[ScalarArray, ScalarArray]:
        return span.sigma1 / span.sigma0, span.alpha1

    def weight_at_data(self, span: Span) -> ScalarArray:
        return span.alpha1


class NoisePrediction(AbstractPrediction):
    r"""$P = E[\epsilon \mid x_t]$, with $a = \alpha_1/\alpha_0$. Lu et al. (2022), proposition 3.1,
    https://arxiv.org/abs/2206.00927."""

    sign: ClassVar = 1.0

    def predict(self, process: AbstractReverseProcess, x: State, t: ScalarArray) -> State:
        return process.noise(x, t)

    def factors(self, span: Span) -> tuple[ScalarArray, ScalarArray]:
        return span.alpha1 / span.alpha0, -span.sigma1

    def weight_at_data(self, span: Span) -> ScalarArray:
        return -span.alpha1 * span.sigma0 / span.alpha0
