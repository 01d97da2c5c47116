r"""Multistep methods for the probability flow: one evaluation a step, past predictions for the rest of the order."""

import abc
import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Int

from sdelab._checks import check_instance
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Place, Step, check_kind
from sdelab.solvers.combination import Combination
from sdelab.solvers.correction import AbstractCorrection
from sdelab.solvers.history import AbstractEnding, AbstractStart, History, Known, empty_history, insert, known_at
from sdelab.solvers.newton import AbstractLinearTerm, newton_integrals, weights
from sdelab.solvers.prediction import AbstractPrediction, Span, span
from sdelab.solvers.variable import AbstractVariable


class MultistepNumbers(eqx.Module):
    r"""Of a step: the $\lambda$ of its predictions, the present one first; the step on the polynomial through them; the last step
    `again`, with the present one, and whether it is `corrected` so; and which `branch` is taken: one that inserts, or the last."""

    levels: Float[Array, " points"]
    step: Combination
    again: Combination | None
    corrected: Bool[Array, ""]
    branch: Int[Array, ""]


class AbstractMultistep(AbstractReverseSolver):
    r"""The polynomial through the last `points()` predictions, integrated exactly against the flow's exponential kernel.

    Any grid, any affine process. One evaluation a step, and those that the start inserts. Where $\sigma(t_1) = 0$ the step is
    of first order, $x_1 = \alpha_1 D(x_0)$, unless the variable is finite there.

    Fields: `start`: `RungeKuttaStart()`, which keeps the order, or `LowOrderStart()`, as published; `ending`: `FullOrder()`, or
    `LowerOrderFinal()`, as published for few steps.
    """

    start: AbstractVar[AbstractStart]
    ending: AbstractVar[AbstractEnding]
    kind: ClassVar = "deterministic"

    def __check_init__(self):
        check_instance(AbstractStart, start=self.start)
        check_instance(AbstractEnding, ending=self.ending)

    @abc.abstractmethod
    def points(self) -> int:
        """How many predictions the polynomial passes through: the order of the method."""

    @abc.abstractmethod
    def prediction(self) -> AbstractPrediction:
        """What is predicted."""

    @abc.abstractmethod
    def variable(self) -> AbstractVariable:
        """In what the polynomial is one."""

    @abc.abstractmethod
    def linear_term(self) -> AbstractLinearTerm | None:
        """The method's own rule for steps of second order; None for the exact integral."""

    @abc.abstractmethod
    def correction(self) -> AbstractCorrection:
        """What the prediction at the end of a step is used for, beside the next step."""

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> MultistepNumbers:
        return self._numbers(process, interval, past, interval.index)

    def _numbers(
        self, process: AbstractReverseProcess, interval: Interval, past: PastTimes, count: Int[Array, ""]
    ) -> MultistepNumbers:
        """After `count` predictions, which in a solve are as many as the steps before."""
        sde = require_affine(process.sde, type(self).__name__)
        here, extra = span(sde, interval.t0, interval.t1), self._extra()
        where = known_at(sde, here, past, count)
        again = self.correction().again(
            sde,
            where,
            past,
            order=self._order(count, interval, ago=1),
            prediction=self.prediction(),
            rule=self.linear_term(),
        )
        return MultistepNumbers(
            levels=where.levels,
            step=self._extrapolation(interval, here, where, count + 1),
            again=again,
            corrected=count > len(extra),  # a step with insertions has the order already that it would get
            branch=jnp.where(here.to_data, len(extra), jnp.minimum(count, len(extra))),
        )

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: History) -> Step:
        numbers = interval.numbers
        if numbers is None:
            numbers = self._numbers(process, interval, memory.times, memory.count)
        value = self.prediction().predict(process, x, interval.t0)
        values = (value, *memory.values)
        if numbers.again is not None and memory.previous is not None:
            x = jnp.where(numbers.corrected, numbers.again(memory.previous, values), x)

        def insertion(step: int, count: int, x: State) -> State:
            points = [(numbers.levels[j], values[j]) for j in range(step + 1)]
            stages = len(self._fractions())
            return insert(
                self.prediction(), process, x, interval, points, list(interval.inner[stages - count : stages])
            )

        def extrapolation(x: State) -> State:
            return numbers.step(x, values[: self.points()])

        insertions = [functools.partial(insertion, step, count) for step, count in enumerate(self._extra())]
        branches = [*insertions, extrapolation]
        branch = self._known_branch(interval.place)
        x1 = jax.lax.switch(numbers.branch, branches, x) if branch is None else branches[branch](x)
        return Step(x1, x1, memory.push(value, interval.t0, x))

    def _known_branch(self, place: Place | None) -> int | None:
        """Which way a step goes: an insertion, or, past those and to the data, the last; None where it is not known beforehand."""
        last = len(self._extra())
        if last == 0 or (place is not None and (place.first >= last or (place.alone and place.to_data))):
            return last
        return place.first if place is not None and place.alone and place.to_data is False else None

    def _order(self, available: Int[Array, ""], interval: Interval, ago: int) -> Int[Array, ""]:
        """How many of the available predictions the step takes, this one or the one so many steps ago."""
        left = (interval.steps - interval.index + ago).astype(available.dtype)
        return self.ending.limit(jnp.minimum(self.points(), available), left)

    def _extrapolation(self, interval: Interval, here: Span, where: Known, available: Int[Array, ""]) -> Combination:
        prediction, variable, rule, count = self.prediction(), self.variable(), self.linear_term(), self.points()
        factor, scale = prediction.factors(here)
        nodes = list(variable.nodes(here, where.times, where.levels))[:count]
        moments = variable.moments(prediction, here, interval.inner[len(self._fractions()) :], count)
        order = self._order(available, interval, ago=0)
        if not variable.regular_at_data:
            order = jnp.where(here.to_data, 1, order)
        linear = rule.integral(moments, here.h, scale) if rule is not None and count > 1 else None
        return Combination(factor, tuple(weights(nodes, newton_integrals(nodes, moments), order, linear)))

    def _extra(self) -> tuple[int, ...]:
        gain = self.correction().gain
        return self.start.extra(1 + gain, self.points() + gain - 1)

    def _fractions(self) -> tuple[float, ...]:
        gain = self.correction().gain
        return self.start.fractions(1 + gain, self.points() + gain - 1)

    def inner_fractions(self) -> tuple[float, ...]:
        return (*self._fractions(), *self.variable().fractions())

    def opening(self) -> int:
        return len(self._extra())

    def remembers(self) -> int:
        return self.points() - 1 + self.correction().gain

    def initial_memory(self, process: AbstractReverseProcess, x: State) -> History:
        return empty_history(process, x, self.remembers(), x if self.correction().gain else None)

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind(type(self).__name__, self.kind, process)
        require_affine(process.sde, type(self).__name__)

    def evaluations(self, steps: int, to_data: bool) -> int:
        return steps + sum(self._extra()[: steps - (1 if to_data else 0)])

    def draws(self) -> int:
        return 0

    def claimed_order(self) -> int:
        gain = self.correction().gain
        return self.ending.keeps(self.start.keeps(self.points() + gain, 1 + gain))
