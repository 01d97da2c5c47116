r"""The variable in which a multistep method's polynomial is a polynomial."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from equinox import AbstractClassVar
from jaxtyping import Array, Float

from sdelab.solvers.prediction import AbstractPrediction, ScalarArray, Span

QUADRATURE = 8  # points of Gauss and Legendre: the integral of a step of h = 3 is off by 1e-12 of it


class AbstractVariable(eqx.Module):
    r"""A decreasing function of $\lambda$ or an increasing one, $\theta$ after an affine map: 0 at $t_0$ and 1 at $t_1$.

    `regular_at_data`: whether it is finite where $\sigma = 0$, and the moments are those of the whole interval there.
    """

    regular_at_data: AbstractClassVar[bool]

    @abc.abstractmethod
    def fractions(self) -> tuple[float, ...]:
        """The inner times, in fractions of the interval in log-SNR, at which `moments` wants to know the variable."""

    @abc.abstractmethod
    def nodes(
        self, span: Span, times: Float[Array, " points"], levels: Float[Array, " points"]
    ) -> Float[Array, " points"]:
        r"""$\theta$ at the times, whose $\lambda$ are `levels`."""

    @abc.abstractmethod
    def moments(
        self, prediction: AbstractPrediction, span: Span, inner: Float[Array, " fractions"], count: int
    ) -> Sequence[ScalarArray]:
        r"""$K_j = \int \theta^j\,dK$ for $j <$ `count`; `inner` are the times at `fractions`."""


class HalfLogSNR(AbstractVariable):
    r"""$\lambda = \log(\alpha/\sigma)$: the moments are $\varphi$ functions."""

    regular_at_data: ClassVar = False

    def fractions(self) -> tuple[float, ...]:
        return ()

    def nodes(self, span, times, levels):
        return (levels - span.level0) / span.h

    def moments(self, prediction, span, inner, count: int):
        return prediction.moments(span, count)


class NoiseToSignal(AbstractVariable):
    r"""$\rho = \sigma/\alpha$, in which the flow is $d(x/\alpha) = \epsilon\,d\rho$: the moments are those of a polynomial.

    With noise prediction only. Nothing is singular at $\sigma = 0$: a last step to there keeps its order.
    """

    regular_at_data: ClassVar = True

    def fractions(self) -> tuple[float, ...]:
        return ()

    def nodes(self, span, times, levels):
        return (jnp.exp(-levels) - jnp.exp(-span.level0)) / self._length(span)

    def moments(self, prediction, span, inner, count: int):
        return [span.alpha1 * self._length(span) / (j + 1) for j in range(count)]

    def _length(self, span: Span) -> ScalarArray:
        return span.sigma1 / span.alpha1 - span.sigma0 / span.alpha0


class Time(AbstractVariable):
    r"""t itself: moments by Gauss–Legendre quadrature in $\lambda$, at inner times that are found once, before the loop."""

    regular_at_data: ClassVar = False

    def fractions(self) -> tuple[float, ...]:
        return tuple(float(c) for c in _gauss_legendre()[0])

    def nodes(self, span, times, levels):
        return (times - span.t0) / (span.t1 - span.t0)

    def moments(self, prediction, span, inner, count: int):
        share, measure = (jnp.asarray(values, span.h.dtype) for values in _gauss_legendre())
        theta = (inner - span.t0) / (span.t1 - span.t0)
        kernel = prediction.factors(span)[1] * span.h * measure * jnp.exp(prediction.sign * span.h * (1.0 - share))
        exact = prediction.moments(span, 1)
        return [*exact, *(jnp.sum(kernel * theta**j) for j in range(1, count))]


def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on [0, 1]."""
    points, measure = np.polynomial.legendre.leggauss(QUADRATURE)
    return 0.5 * (1.0 + points), 0.5 * measure
