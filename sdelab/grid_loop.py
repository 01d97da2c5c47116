"""The loop over the steps of a grid that `diffrax.diffeqsolve` runs: with nothing in it but the solver's own work."""

import dataclasses
import functools
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._rows import RowTable
from sdelab.solvers.base import AbstractReverseSolver, Interval, Place, reverse_term_of


class GridLoop(diffrax.AbstractAdjoint):
    """`diffrax.RecursiveCheckpointAdjoint(checkpoints)` for one explicit step per interval of a `diffrax.StepTo`.

    diffrax's loop is one for all controllers. Here every step is accepted, all are known beforehand, and what differs from
    step to step is known as well: the solver's first `opening()` steps are compiled each for itself, so that the others are a
    loop without branches, but for the step to sigma = 0 of a grid that may end there: compiled for itself, it would be one more
    copy of the network. The loop carries the numbers of its next step (`RowTable`). Gradients are the same, with the same
    checkpoints in that loop, and nothing but the state kept of the steps before it.

    Fields: `clock`, the times of the controller, which checks them in the compiled program; read from there, that check is a call
    back to Python, and a program with one is waited for on CPU; `as_clock` has made it before. `checkpoints`; `above_data`: whether
    sigma > 0 at the end of the grid, False if that is not known.

    Saves the first state, all, or the last, as `SaveAt` says; knows of no events and no dense output.
    """

    clock: Float[Array, " steps_plus_1"]
    checkpoints: int | None = eqx.field(static=True)
    above_data: bool = eqx.field(static=True)

    def loop(self, *, solver, terms, args, saveat, init_state, max_steps, t1, **rest) -> Any:
        """What `diffrax.diffeqsolve` calls."""
        clock, steps, saved = self.clock, max_steps, saveat.subs
        opening = min(solver.opening(), steps) if isinstance(solver, AbstractReverseSolver) else 0
        step = functools.partial(_step, solver, terms, args, clock)

        y, state = jax.tree.map(jnp.asarray, (init_state.y, init_state.solver_state))
        states = [y[None]] if saved.t0 else []
        for number in range(opening):
            place = Place(number, True, False if number < steps - 1 else self._to_data())
            y, state = eqx.filter_checkpoint(step)(place, number, y, state)
            states.append(y[None])
        if steps > opening:
            intervals = reverse_term_of(terms).intervals if isinstance(solver, AbstractReverseSolver) else None
            y, state, others = self._others(step, intervals, opening, steps, y, state, saved.steps == 1)
            states.append(others)
        ys = jnp.concatenate(states) if saved.steps else y[None]
        ts = clock[0 if saved.t0 else 1 :] if saved.steps else clock[-1:]
        found = y, t1, state, ts, ys, steps, steps, len(ts)
        return eqx.tree_at(_reported, init_state, found, is_leaf=lambda x: x is None), {}

    def _to_data(self) -> bool | None:
        """Of the last step."""
        return False if self.above_data else None

    def _others(
        self, step: Any, intervals: Interval | None, first: int, end: int, y: Array, state: Any, saves: bool
    ) -> tuple[Array, Any, Any]:
        """The steps from `first` to before `end`, in a loop; their states, if it `saves` them. `intervals` of all steps, None for
        diffrax's solvers, which read the clock."""
        place, table = Place(first, False, self._to_data()), RowTable.of(intervals)

        def body(carry):
            index, y, state, ys, row = carry
            y, state = step(place, index, y, state, _with_constant_times(table.as_tree(row)))
            ys = None if ys is None else ys.at[index - first].set(y)
            return index + 1, y, state, ys, table.row(jnp.minimum(index + 1, end - 1))

        start, ys = jnp.asarray(first), jnp.empty((end - first, *y.shape), y.dtype) if saves else None
        _, y, state, ys, _ = eqxi.while_loop(
            lambda carry: carry[0] < end,
            body,
            (start, y, state, ys, table.row(start)),
            max_steps=end - first,
            buffers=lambda carry: carry[3],
            kind="checkpointed",
            checkpoints=self.checkpoints,
        )
        return y, state, ys


def _with_constant_times(interval: Interval | None) -> Interval | None:
    """Grids are constants to every gradient: in a row their times stand beside numbers that need not be."""
    if interval is None:
        return None
    t0, t1, inner = jax.lax.stop_gradient((interval.t0, interval.t1, interval.inner))
    return dataclasses.replace(interval, t0=t0, t1=t1, inner=inner)


def _step(
    solver, terms, args, clock, place: Place, index: Any, y: Array, state: Any, silent: Interval | None = None
) -> tuple[Array, Any]:
    if isinstance(solver, AbstractReverseSolver):
        y, _, _, state, _ = solver.step_at(place, terms, y, args, state, silent=silent)
    else:
        y, _, _, state, _ = solver.step(terms, clock[index], clock[index + 1], y, args, state, False)
    return y, state


def _reported(state: Any) -> tuple[Any, ...]:
    """What a solve reads from diffrax's state at the end."""
    saved = state.save_state
    counts = state.num_steps, state.num_accepted_steps, saved.save_index
    return state.y, state.tprev, state.solver_state, saved.ts, saved.ys, *counts
