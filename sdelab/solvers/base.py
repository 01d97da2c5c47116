r"""The contract of sdelab's own solvers: one update rule over one interval, as a diffrax solver.

diffrax integrates in the clock $s = -t$, which increases from $-t_{max}$ to $-t_{min}$. A `ReverseTerm` tells a solver
over which interval it goes and with what noise; the reverse process itself is diffrax's `args`. A solver implements
`advance` in natural time and the field's symbols; trajectories, adjoints, progress and result codes are diffrax's.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractClassVar
from jaxtyping import Array, Bool, Float, Int

from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.noise import AbstractNoise, interval_index

PastTimes = Float[Array | np.ndarray, " past"]


class Place(NamedTuple):
    """What is known of a step when it is compiled: that it is step number `first`, if `alone`, or otherwise some step from there on,
    and whether it ends where sigma = 0, None if that is not known."""

    first: int
    alone: bool
    to_data: bool | None


class Interval(eqx.Module):
    """One step, from `t0` down to `t1`; `noise` holds the standard normal numbers that it may use, in order.

    `index` counts the steps of the grid from 0, `steps` is how many there are. `noise` has shape `(draws, batch, *event)`.
    `inner` are the times that the solver asked for by `inner_fractions` or `inner_times`, `numbers` what its `numbers` gave
    for this step; None in an interval made by hand, and then a solver computes them where it needs them. `place`: None where
    nothing is known of it, and then a solver compiles all that a step may do.
    """

    t0: Float[Array, ""]
    t1: Float[Array, ""]
    index: Int[Array, ""]
    is_last: Bool[Array, ""]
    noise: Float[Array, "draws batch ..."]
    inner: Float[Array, " fractions"] = eqx.field(default_factory=lambda: jnp.zeros(0))
    steps: Int[Array, ""] = eqx.field(default_factory=lambda: jnp.ones((), jnp.int32))
    numbers: Any = None
    place: Place | None = eqx.field(default=None, static=True)

    def at_data(
        self,
        to_data: Bool[Array, ""],
        there: Callable[[State], State],
        elsewhere: Callable[[State], State],
        x: State,
    ) -> State:
        """`there(x)` if the step ends where sigma = 0, else `elsewhere(x)`: only that one, where it is known beforehand."""
        if self.place is None or self.place.to_data is None:
            return jax.lax.cond(to_data, there, elsewhere, x)
        return there(x) if self.place.to_data else elsewhere(x)

    def part(self, t0: Float[Array, ""], t1: Float[Array, ""], numbers: Any) -> "Interval":
        """From `t0` to `t1`, for a solver inside another one that has taken the first noise and the first inner time.

        Of its place nothing is known: rounding may bring it to sigma = 0 in a step that does not end there.
        """
        return Interval(t0, t1, self.index, self.is_last, self.noise[1:], self.inner[1:], self.steps, numbers)


class Step(eqx.Module):
    """What one step gives: the new state, its mean before the noise was added, the memory, and an error estimate.

    The mean of a deterministic solver's step is the state: nothing else is kept of it.
    """

    x: State
    x_mean: State
    memory: Any = None
    error: State | None = None


class ReverseTerm(diffrax.AbstractTerm):
    """The intervals and the noise of a solve in the clock s = -t. `args` of the solve is the reverse process.

    `intervals` are those of all steps, each leaf with a leading axis, and without noise. A solver counts its steps from the
    start of the clock. (What diffrax's own wrapper makes of `contr`, where it multiplies every leaf by the direction of
    time, has integers for booleans.)
    """

    clock: Float[Array, " steps_plus_1"]
    intervals: Interval
    noise: AbstractNoise
    draws: int = eqx.field(static=True)
    like: jax.ShapeDtypeStruct = eqx.field(static=True)

    def vf(self, t, y: State, args: AbstractReverseProcess) -> State:
        return -args.drift(y, -t)

    def contr(self, t0: Any, t1: Any, **kwargs) -> Interval:
        return self.interval(interval_index(self.clock, t0))

    def interval(self, index: Int[Array, ""], place: Place | None = None, silent: Interval | None = None) -> Interval:
        """Step `index` of the grid, with its noise; `silent`: the same without noise, if that has been read already."""
        interval = jax.tree.map(lambda leaf: leaf[index], self.intervals) if silent is None else silent
        noise = self.noise.draw(index, self.draws, self.like) if self.draws else interval.noise
        return dataclasses.replace(interval, noise=noise, place=place)

    def prod(self, vf: State, control: Interval) -> State:
        return vf * (control.t0 - control.t1)


class GridNumbers(eqx.Module):
    """What depends on time alone, for all steps of a grid: `Interval.inner` and `Interval.numbers`, with a leading axis."""

    inner: Float[Array, "steps fractions"]
    numbers: Any


def grid_numbers(
    solver: "AbstractReverseSolver", process: AbstractReverseProcess, clock: Float[Array, " steps_plus_1"]
) -> GridNumbers:
    """Those of `solver` on the negated grid `clock`, all at once."""
    starts, ends = -clock[:-1], -clock[1:]
    steps = len(starts)
    index = jnp.arange(steps, dtype=jnp.int32)
    ago = 1 + jnp.arange(solver.remembers(), dtype=jnp.int32)
    past = starts[jnp.maximum(index[:, None] - ago[None, :], 0)]

    def one(t0: Array, t1: Array, index: Array, inner: Array, past: Array) -> Any:
        count = jnp.asarray(steps, jnp.int32)
        interval = Interval(t0, t1, index, index == count - 1, jnp.zeros((0, 0)), inner, count)
        return solver.numbers(process, interval, past)

    inner = solver.inner_times(process, starts, ends)
    return GridNumbers(inner, jax.vmap(one)(starts, ends, index, inner, past))


def reverse_term(
    solver: "AbstractReverseSolver",
    process: AbstractReverseProcess,
    clock: Float[Array, " steps_plus_1"],
    noise: AbstractNoise,
    like: jax.ShapeDtypeStruct,
    known: GridNumbers | None = None,
) -> ReverseTerm:
    """The term on which `solver` walks the negated grid `clock`. `known`: its `grid_numbers`, computed here if None."""
    found = grid_numbers(solver, process, clock) if known is None else jax.tree.map(jnp.asarray, known)
    starts, ends = -clock[:-1], -clock[1:]
    steps = len(starts)

    def one(t0: Array, t1: Array, index: Array, inner: Array, numbers: Any) -> Interval:
        count, nothing = jnp.asarray(steps, jnp.int32), jnp.zeros((0, *like.shape), like.dtype)
        return Interval(t0, t1, index, index == count - 1, nothing, inner, count, numbers)

    intervals = jax.vmap(one)(starts, ends, jnp.arange(steps, dtype=jnp.int32), found.inner, found.numbers)
    return ReverseTerm(clock, intervals, noise, solver.draws(), like)


def reverse_term_of(terms: Any) -> ReverseTerm:
    """Without diffrax's wrapper, which turns time around: not here."""
    return terms if isinstance(terms, ReverseTerm) else terms.term


def inner_times(
    process: AbstractReverseProcess, times: Float[Array, " steps_plus_1"], fractions: tuple[float, ...]
) -> Float[Array, "steps fractions"]:
    """`times_between` the points of a grid."""
    return times_between(process, times[:-1], times[1:], fractions)


def times_between(
    process: AbstractReverseProcess,
    starts: Float[Array, " steps"],
    ends: Float[Array, " steps"],
    fractions: tuple[float, ...],
) -> Float[Array, "steps fractions"]:
    r"""The times at the given fractions of every interval, measured in log-SNR, shape `(steps, len(fractions))`.

    All at once, before the loop: the inverse of the log-SNR is a bisection. Grids are constants to every gradient, and so
    are these. Where an interval ends at $\sigma = 0$ there is no such time, and its end stands in its place.
    """
    if not fractions:
        return jnp.zeros((starts.shape[0], 0), starts.dtype)
    sde = jax.lax.stop_gradient(require_affine(process.sde, "a solver with inner times"))
    first, last = sde.log_snr(starts), sde.log_snr(ends)
    step = jnp.where(jnp.isfinite(last), last, first) - first
    share = jnp.asarray(fractions, starts.dtype)
    inner = sde.log_snr_inverse(first[:, None] + share[None, :] * step[:, None])
    return jnp.where(jnp.isfinite(last)[:, None], inner, ends[:, None]).astype(starts.dtype)


NO_TIMES = np.zeros(0)


class AbstractReverseSolver(diffrax.AbstractSolver):
    """A solver for reverse processes. Implement `advance`, and say what it costs and on what it works.

    `kind`: "stochastic" solvers take a `ReverseSDE`, "deterministic" ones a `ProbabilityFlow`.
    """

    kind: AbstractClassVar[Literal["stochastic", "deterministic"]]
    term_structure: ClassVar = ReverseTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    @abc.abstractmethod
    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        """One step from `x` at `interval.t0` to `interval.t1`."""

    @abc.abstractmethod
    def evaluations(self, steps: int, to_data: bool) -> int:
        """How often the score is evaluated in `steps` steps; `to_data`: the last one ends where sigma = 0."""

    @abc.abstractmethod
    def draws(self) -> int:
        """How many normal arrays like the state one step consumes."""

    def inner_fractions(self) -> tuple[float, ...]:
        """Where inside an interval the solver evaluates the score, in fractions of its length in log-SNR: `interval.inner`.

        For affine processes only. A single-step method of higher order overrides it.
        """
        return ()

    def inner_times(
        self, process: AbstractReverseProcess, starts: Float[Array, " steps"], ends: Float[Array, " steps"]
    ) -> Float[Array, "steps inner"]:
        """`interval.inner` of every interval of the grid, from `starts` down to `ends`: those at `inner_fractions`.

        A solver that needs other times, outside an interval too, overrides it.
        """
        return times_between(process, starts, ends, self.inner_fractions())

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> Any:
        """What a step needs that depends on time alone, a pytree of arrays: `interval.numbers` of `advance`.

        Called for all steps of a grid together (by `jax.vmap`, under which a `lax.cond` takes both branches), before the loop, and
        kept for the next call with the same numbers in solver and process: they may hang on nothing else. If score or condition
        is asked for, they are not kept. `past`: the times at which the last
        `remembers()` steps began, the most recent first; those before the first step of the grid are made up.
        """
        return None

    def numbers_of(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes = NO_TIMES) -> Any:
        """Those that the interval has, or, where it was made by hand, the same computed here."""
        return self.numbers(process, interval, past) if interval.numbers is None else interval.numbers

    def remembers(self) -> int:
        """From how many earlier steps `numbers` needs the times."""
        return 0

    def opening(self) -> int:
        """How many steps at the start do something else than those after them: each of them is compiled for itself, and
        `Interval.place` tells which it is. A solver that steps by another one has that one's."""
        return 0

    def check(self, process: AbstractReverseProcess) -> None:
        """Errors: a stochastic solver on a probability flow, or a deterministic one on a reverse SDE."""
        check_kind(type(self).__name__, self.kind, process)

    def initial_memory(self, process: AbstractReverseProcess, x: State) -> Any:
        """What `advance` receives as memory at the first step. A multistep method overrides it."""
        return None

    def claimed_order(self) -> int | None:
        """The order of convergence claimed on grids with sigma(t1) > 0: of the flow, or weak, of the reverse SDE.

        None where none is claimed. `solvers.table()` shows it, and `testing.check_solver` holds the solver to it.
        """
        return None

    def order(self, terms: Any) -> int | None:
        return self.claimed_order()

    def init(self, terms, t0, t1, y0: State, args: AbstractReverseProcess) -> tuple[Any, State | None, Int[Array, ""]]:
        return self.initial_memory(args, y0), self._mean(y0), jnp.zeros((), jnp.int32)

    def step(self, terms, t0, t1, y0: State, args: AbstractReverseProcess, solver_state, made_jump):
        return self.step_at(None, terms, y0, args, solver_state)

    def step_at(
        self,
        place: Place | None,
        terms,
        y0: State,
        args: AbstractReverseProcess,
        solver_state,
        *,
        silent: Interval | None = None,
    ):
        """diffrax's `step`, with what is known of the place in the grid; `silent`: the interval, but for its noise, if that has been
        read already."""
        memory, _, index = solver_state
        step = self.advance(args, y0, reverse_term_of(terms).interval(index, place, silent), memory)
        dense, state = dict(y0=y0, y1=step.x), (step.memory, self._mean(step.x_mean), index + 1)
        return step.x, step.error, dense, state, diffrax.RESULTS.successful

    def _mean(self, x_mean: State) -> State | None:
        """None for a deterministic solver, whose steps are their own means: a loop would carry the state twice."""
        return x_mean if self.kind == "stochastic" else None

    def func(self, terms, t0, y0: State, args: AbstractReverseProcess) -> State:
        return terms.vf(t0, y0, args)


def check_kind(name: str, kind: Literal["stochastic", "deterministic"], process: AbstractReverseProcess) -> None:
    """A solver and a process must both be stochastic or both deterministic."""
    if kind == "stochastic" and not process.stochastic:
        raise TypeError(
            f"{name} is a stochastic solver and a {type(process).__name__} has no noise; accepted: a ReverseSDE "
            "(with stochasticity=0 for the flow stepped by this method's rule), or a deterministic solver."
        )
    if kind == "deterministic" and process.stochastic:
        raise TypeError(
            f"{name} is a deterministic solver, a {type(process).__name__} has noise; accepted: a ProbabilityFlow, "
            "or a stochastic solver."
        )
