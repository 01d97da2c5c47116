"""What a multistep method remembers, how it starts without a past, and how it ends."""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import Interval, PastTimes
from sdelab.solvers.combination import Combination
from sdelab.solvers.exponential import half_log_snr
from sdelab.solvers.newton import newton_integrals, weights
from sdelab.solvers.prediction import AbstractPrediction, ScalarArray, Span, spans


class Known(eqx.Module):
    r"""Where predictions were made, the present one first: times and $\lambda$. Those of past ones that are not there yet are made
    up: they get no weight, and must not make the others NaN."""

    times: Float[Array, " points"]
    levels: Float[Array, " points"]


def known_at(sde: AbstractAffineSDE, here: Span, past: PastTimes, count: Int[Array, ""]) -> Known:
    """The present and the `past`, the most recent first, of which the first `count` have been."""
    past = jnp.asarray(past)
    age = jnp.arange(len(past), dtype=count.dtype)
    away = 1.0 + age.astype(past.dtype)
    times = jnp.where(age < count, past, here.t0 + away * (here.t0 - here.t1))
    levels = jnp.where(age < count, half_log_snr(sde, past), here.level0 - away)
    return Known(jnp.concatenate([here.t0[None], times]), jnp.concatenate([here.level0[None], levels]))


class History(eqx.Module):
    """The last predictions and the times at which they were made, the most recent first; `count` were ever made.

    `previous`: the state at the first of the times, for a method that corrects the last step; None elsewhere.
    """

    values: tuple[State, ...]
    times: Float[Array, " depth"]
    count: Int[Array, ""]
    previous: State | None = None

    def push(self, value: State, t: ScalarArray, x: State) -> "History":
        """With a new prediction, made at `(x, t)`, and without the oldest."""
        depth = len(self.values)
        times = jnp.concatenate([t[None], self.times])[:depth]
        return History((value, *self.values)[:depth], times, self.count + 1, None if self.previous is None else x)


def empty_history(process: AbstractReverseProcess, x: State, depth: int, previous: State | None) -> History:
    """The memory of a solve before its first step."""
    dtype = jnp.float64 if x.dtype == jnp.float64 else jnp.float32  # that of the grid
    times = jnp.full((depth,), process.sde.t_max, dtype)
    return History((jnp.zeros_like(x),) * depth, times, jnp.zeros((), jnp.int32), previous)


class AbstractStart(eqx.Module):
    """The first steps of a multistep method, whose past is too short for its order."""

    @abc.abstractmethod
    def extra(self, own: int, needed: int) -> tuple[int, ...]:
        """How many evaluations the first steps insert, for each of them that does.

        `own`: the order of the method's first step by itself, which grows by one with each step. `needed`: the order
        that a finite number of steps must have for the whole to keep its own.
        """

    @abc.abstractmethod
    def keeps(self, order: int, own: int) -> int:
        """What is left of a method's order."""

    def fractions(self, own: int, needed: int) -> tuple[float, ...]:
        """Where in the interval they are inserted, in fractions of its log-SNR."""
        most = max(self.extra(own, needed), default=0)
        return () if most == 0 else (2 / 3,) if most == 1 else (1 / 3, 2 / 3)


class LowOrderStart(AbstractStart):
    """The first step of order 1, the second of order 2 and so on, as published: one evaluation each.

    A first step of order 1 has a local error of order 2, and whatever comes after, the global order is 2 (and 3 of UniPC
    with its corrector).
    """

    def extra(self, own: int, needed: int) -> tuple[int, ...]:
        return ()

    def keeps(self, order: int, own: int) -> int:
        return min(order, own + 1)


class RungeKuttaStart(AbstractStart):
    r"""Inserts evaluations into the first steps, so that every step has the order that the whole needs.

    In the first step at 2/3 of the interval in $\lambda$ (order 2), or at 1/3 and 2/3: an exponential Runge–Kutta method of
    order 3, that of Hochbruck and Ostermann (2005), section 5.2, with $c_2 = 1/3$, https://doi.org/10.1137/040611434, and
    DPM-Solver-3's (Lu et al., 2022, algorithm 2, https://arxiv.org/abs/2206.00927). In a later step at 2/3, on a polynomial that
    passes through the past too. With 4 points it costs 3 evaluations more than `LowOrderStart`, with 3 points 1, with 2 none.
    """

    def extra(self, own: int, needed: int) -> tuple[int, ...]:
        if own >= needed:
            return ()
        return (needed - 1, *(needed - order for order in range(own + 1, needed)))

    def keeps(self, order: int, own: int) -> int:
        return order


class AbstractEnding(eqx.Module):
    """The order of the last steps."""

    @abc.abstractmethod
    def limit(self, order: Int[Array, ""], left: Int[Array, ""]) -> Int[Array, ""]:
        """The order that a step of that order is allowed, when so many steps are left, it among them."""

    @abc.abstractmethod
    def keeps(self, order: int) -> int:
        """What is left of a method's order."""


class FullOrder(AbstractEnding):
    r"""The last steps are as the others. (A step to $\sigma = 0$ is of first order all the same, and exact where the data are.)"""

    def limit(self, order: Int[Array, ""], left: Int[Array, ""]) -> Int[Array, ""]:
        return order

    def keeps(self, order: int) -> int:
        return order


class LowerOrderFinal(AbstractEnding):
    """The last step is of order 1, the one before it of order 2 and so on, as published code does for few steps
    ("lower_order_final", steps < 10 or < 15). The global order is 2 at most."""

    def limit(self, order: Int[Array, ""], left: Int[Array, ""]) -> Int[Array, ""]:
        return jnp.minimum(order, left)

    def keeps(self, order: int) -> int:
        return min(order, 2)


def insert(
    prediction: AbstractPrediction,
    process: AbstractReverseProcess,
    x: State,
    interval: Interval,
    known: Sequence[tuple[ScalarArray, State]],
    inner: Sequence[ScalarArray],
) -> State:
    r"""A step on the polynomial through the `known` predictions, given with their $\lambda$, and one inserted at the last
    of the `inner` times; the state there comes from the known ones and one inserted before, and so on."""
    sde, points = require_affine(process.sde, "a multistep solver"), known
    *there, here = spans(sde, interval.t0, [*inner, interval.t1])
    for part in there:
        x_t = _extrapolate(prediction, part, x, points)
        points = [*known, (part.level1, prediction.predict(process, x_t, part.t1))]
    return _extrapolate(prediction, here, x, points)


def _extrapolate(
    prediction: AbstractPrediction, here: Span, x: State, points: Sequence[tuple[ScalarArray, State]]
) -> State:
    return through(prediction, here, [level for level, _ in points])(x, [value for _, value in points])


def through(prediction: AbstractPrediction, here: Span, levels: Sequence[ScalarArray]) -> Combination:
    r"""The step with the polynomial in $\lambda$ through the predictions at all the `levels`."""
    nodes = [(level - here.level0) / here.h for level in levels]
    integrals = newton_integrals(nodes, prediction.moments(here, len(nodes)))
    return Combination(prediction.factors(here)[0], tuple(weights(nodes, integrals, len(nodes))))
