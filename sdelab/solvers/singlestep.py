"""Single-step exponential Runge–Kutta methods for the probability flow: what DPM-Solver and DPM-Solver++ share."""

import abc
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax

from sdelab._checks import check_increasing, check_positive, check_unit_interval
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, Step, check_kind
from sdelab.solvers.history import extrapolate
from sdelab.solvers.newton import AbstractLinearTerm, combine, newton_integrals, weights
from sdelab.solvers.prediction import AbstractPrediction, ScalarArray, Span, spans

Point = tuple[ScalarArray, State]
r"""A $\lambda$ and the prediction there."""


class AbstractSinglestep(AbstractReverseSolver):
    r"""Predictions at $t_0$ and at the times `interval.inner`; the step integrates a polynomial through them exactly.

    The state at an inner time comes from all predictions before it. Where $\sigma(t_1) = 0$ the step is the exact one of first
    order, $x_1 = \alpha_1 D(x_0)$, with one evaluation. The inner times are taken as they are given: their rounding costs
    nothing, and others than those of `inner_fractions` make another method of the same kind.
    """

    kind: ClassVar = "deterministic"

    @abc.abstractmethod
    def prediction(self) -> AbstractPrediction:
        """What is predicted."""

    @abc.abstractmethod
    def conclude(self, here: Span, x: State, points: Sequence[Point]) -> State:
        """$x_1$ from all predictions, the first one at $t_0$."""

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        sde, prediction = require_affine(process.sde, type(self).__name__), self.prediction()
        inner = [interval.inner[i] for i in range(len(self.inner_fractions()))]
        *there, here = spans(sde, interval.t0, [*inner, interval.t1])
        first = prediction.predict(process, x, interval.t0)

        def to_data(x: State) -> State:
            return combine(prediction.factors(here)[0], [prediction.weight_at_data(here)], x, [first])

        def whole(x: State) -> State:
            points = [(here.level0, first)]
            for part in there:
                y = extrapolate(prediction, part, x, points)
                points.append((part.level1, prediction.predict(process, y, part.t1)))
            return self.conclude(here, x, points)

        x1 = jax.lax.cond(here.to_data, to_data, whole, x)
        return Step(x1, x1)

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind(type(self).__name__, self.kind, process)
        require_affine(process.sde, type(self).__name__)

    def evaluations(self, steps: int, to_data: bool) -> int:
        stages = 1 + len(self.inner_fractions())
        return stages * steps - (stages - 1 if to_data else 0)

    def draws(self) -> int:
        return 0


class AbstractLastPolynomial(eqx.Module):
    """Through which predictions the polynomial of a third-order step passes."""

    @abc.abstractmethod
    def choose(self, points: Sequence[Point]) -> Sequence[Point]:
        """Of the three predictions, at $t_0$, $s_1$ and $s_2$."""


class FirstAndLast(AbstractLastPolynomial):
    """A line through those at $t_0$ and $s_2$, as published: of third order where $r_2 = 2/3$."""

    def choose(self, points: Sequence[Point]) -> Sequence[Point]:
        return [points[0], points[-1]]


class AllPoints(AbstractLastPolynomial):
    """A parabola through all three, "taylor" in DPM-Solver's code: it too is of third order only where $r_2 = 2/3$."""

    def choose(self, points: Sequence[Point]) -> Sequence[Point]:
        return points


def second_order(
    prediction: AbstractPrediction, rule: AbstractLinearTerm, here: Span, x: State, points: Sequence[Point]
) -> State:
    """$x_1$ from two predictions: the line through them, integrated by `rule`."""
    factor, scale = prediction.factors(here)
    nodes, moments = [(level - here.level0) / here.h for level, _ in points], prediction.moments(here, 2)
    linear = rule.integral(moments, here.h, scale)
    parts = weights(nodes, newton_integrals(nodes, moments), 2, linear)
    return combine(factor, parts, x, [value for _, value in points])


def third_order_where(r2: float) -> int:
    """3 where the second inner time lies at 2/3 of the interval, which the conditions for order 3 fix; else 2."""
    return 3 if abs(r2 - 2 / 3) < 1e-6 else 2


def check_fractions(**fractions: float) -> None:
    """Inner times: fractions that increase strictly, in (0, 1]."""
    check_positive(**fractions)
    check_unit_interval(**fractions)
    for low, high in itertools.pairwise(fractions):
        check_increasing(**{low: fractions[low], high: fractions[high]})
