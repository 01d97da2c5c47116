"""Single-step exponential Runge–Kutta methods for the probability flow: what DPM-Solver and DPM-Solver++ share."""

import abc
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool

from sdelab._checks import check_increasing, check_positive, check_unit_interval
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.combination import Combination
from sdelab.solvers.history import through
from sdelab.solvers.newton import AbstractLinearTerm, newton_integrals, weights
from sdelab.solvers.prediction import AbstractPrediction, ScalarArray, Span, spans

T = TypeVar("T")


class SinglestepNumbers(eqx.Module):
    """Of a step: how the state at each inner `time`, and at the end, comes from the predictions before; a step to sigma = 0."""

    times: tuple[ScalarArray, ...]
    inner: tuple[Combination, ...]
    end: Combination
    at_data: Combination
    to_data: Bool[Array, ""]


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
    def conclusion(self, here: Span, levels: Sequence[ScalarArray]) -> Combination:
        r"""$x_1$ from the predictions that are `chosen`; `levels` are their $\lambda$."""

    def chosen(self, points: Sequence[T]) -> Sequence[T]:
        """Of what there is at $t_0$ and at the inner times, in their order: all of it."""
        return points

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> SinglestepNumbers:
        sde, prediction = require_affine(process.sde, type(self).__name__), self.prediction()
        inner = [interval.inner[i] for i in range(len(self.inner_fractions()))]
        *there, here = spans(sde, interval.t0, [*inner, interval.t1])
        # a step to sigma = 0 takes none of these times, and they are all one: apart, they have finite derivatives
        apart = [here.level0 + (i + 1) / (len(there) + 1) * here.h for i in range(len(there))]
        inside = [jnp.where(here.to_data, a, part.level1) for a, part in zip(apart, there, strict=True)]
        levels = [here.level0, *inside]
        return SinglestepNumbers(
            times=tuple(inner),
            inner=tuple(through(prediction, part, levels[: i + 1]) for i, part in enumerate(there)),
            end=self.conclusion(here, self.chosen(levels)),
            at_data=Combination(prediction.factors(here)[0], (prediction.weight_at_data(here),)),
            to_data=here.to_data,
        )

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        numbers, predict = self.numbers_of(process, interval), self.prediction().predict
        first = predict(process, x, interval.t0)

        def whole(x: State) -> State:
            values = [first]
            for t, inner in zip(numbers.times, numbers.inner, strict=True):
                values.append(predict(process, inner(x, values), t))
            return numbers.end(x, self.chosen(values))

        x1 = interval.at_data(numbers.to_data, lambda x: numbers.at_data(x, [first]), whole, x)
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
    def choose(self, points: Sequence[T]) -> Sequence[T]:
        """Of what there is at $t_0$, $s_1$ and $s_2$."""


class FirstAndLast(AbstractLastPolynomial):
    """A line through those at $t_0$ and $s_2$, as published: of third order where $r_2 = 2/3$."""

    def choose(self, points: Sequence[T]) -> Sequence[T]:
        return [points[0], points[-1]]


class AllPoints(AbstractLastPolynomial):
    """A parabola through all three, "taylor" in DPM-Solver's code: it too is of third order only where $r_2 = 2/3$."""

    def choose(self, points: Sequence[T]) -> Sequence[T]:
        return points


def second_order(
    prediction: AbstractPrediction, rule: AbstractLinearTerm, here: Span, levels: Sequence[ScalarArray]
) -> Combination:
    """$x_1$ from two predictions: the line through them, integrated by `rule`."""
    factor, scale = prediction.factors(here)
    nodes, moments = [(level - here.level0) / here.h for level in levels], prediction.moments(here, 2)
    linear = rule.integral(moments, here.h, scale)
    return Combination(factor, tuple(weights(nodes, newton_integrals(nodes, moments), 2, linear)))


def third_order_where(r2: float) -> int:
    """3 where the second inner time lies at 2/3 of the interval, which the conditions for order 3 fix; else 2."""
    return 3 if abs(r2 - 2 / 3) < 1e-6 else 2


def check_fractions(**fractions: float) -> None:
    """Inner times: fractions that increase strictly, in (0, 1]."""
    check_positive(**fractions)
    check_unit_interval(**fractions)
    for low, high in itertools.pairwise(fractions):
        check_increasing(**{low: fractions[low], high: fractions[high]})
