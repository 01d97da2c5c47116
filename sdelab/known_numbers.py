"""What a solver's steps need that depends on time alone, computed once for a process and a grid, and not in every call."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from sdelab.arguments import as_arrays
from sdelab.reverse import AbstractReverseProcess
from sdelab.solvers.base import AbstractReverseSolver, GridNumbers, grid_numbers

KEPT = 256
"""How many grids' numbers are kept, the last used: some thousand numbers each."""


class _Asked:
    """A solver on a process and a grid, equal to another one that gives the same numbers."""

    def __init__(self, key: Any, solver: AbstractReverseSolver, process: AbstractReverseProcess, clock: np.ndarray):
        self.key, self.solver, self.process, self.clock = key, solver, process, clock

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def known_numbers(
    solver: AbstractReverseSolver, process: AbstractReverseProcess, clock: Float[np.ndarray, " steps_plus_1"]
) -> GridNumbers | None:
    """`grid_numbers` on the negated grid `clock`, as NumPy's arrays; None where they are no constants to be kept.

    They are where every number of the process, but for its score, and of the solver is a Python number. The log-SNR's inverse,
    on which inner times hang, is a bisection: with few samples it takes longer than the steps. Where the process or the
    solver holds arrays, on a device or traced (a gradient with respect to `beta_max`), the solve computes them itself.
    Errors: those of `solver.check(process)`, once.
    """
    timely = {f.name: getattr(process, f.name) for f in dataclasses.fields(process) if f.name not in _OF_THE_SCORE}
    leaves, structure = jax.tree.flatten((solver, timely))
    if not all(type(leaf) in (float, int, bool) for leaf in leaves) or not jax.sharding.get_abstract_mesh().empty:
        return None
    numbers = tuple((type(leaf), leaf.hex() if type(leaf) is float else leaf) for leaf in leaves)
    kind = type(process), clock.dtype.str, bool(jax.config.read("jax_enable_x64"))
    return _numbers_once(_Asked((structure, numbers, kind, clock.tobytes()), solver, process, clock))


_OF_THE_SCORE = ("score", "condition")


@functools.lru_cache(maxsize=KEPT)
def _numbers_once(asked: _Asked) -> GridNumbers:
    asked.solver.check(asked.process)
    timely = dataclasses.replace(asked.process, score=_no_score, condition=None)
    with jax.ensure_compile_time_eval():
        found = _compiled(as_arrays(asked.solver), as_arrays(timely), asked.clock)
    return jax.tree.map(np.asarray, found)


@eqx.filter_jit
def _compiled(solver: AbstractReverseSolver, process: AbstractReverseProcess, clock: Any) -> GridNumbers:
    return grid_numbers(solver, process, jax.numpy.asarray(clock))


def _no_score(*args: Any) -> Any:
    raise TypeError("`numbers` and `inner_times` of a solver depend on time alone, and may not evaluate the score.")
