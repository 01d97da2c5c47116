"""What a solver's steps need that depends on time alone, computed once for a process and a grid, and not in every call."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sdelab._compile import as_arrays
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, ReverseSDE
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import AbstractReverseSolver, GridNumbers, grid_numbers

KEPT = 64
"""How many grids' numbers are kept, the last used: from some to, of `diffrax.Dopri8`, two hundred numbers a step."""


class Known(NamedTuple):
    """A solver's `grid_numbers`, in NumPy's arrays, and whether sigma > 0 at the end of the grid, as it is rounded."""

    numbers: GridNumbers
    above_data: bool


def known_numbers(
    solver: AbstractReverseSolver, process: AbstractReverseProcess, clock: Float[np.ndarray, " steps_plus_1"]
) -> Known | None:
    """What is known of a solve on the negated grid `clock`; None where it is no constant to be kept.

    It is one for a `ReverseSDE` or a `ProbabilityFlow` of which, but for its score and condition, every number is a Python
    number, and so are the solver's. The log-SNR's inverse, on which inner times hang, is a bisection: with few samples it takes
    longer than the steps. Where there are arrays, on a device or traced (a gradient with respect to `beta_max`), in a process of
    another class, or if the solver's `numbers` ask for the score or the condition, the solve computes them itself; so it does for a
    process whose functions close over a traced number.
    """
    stochasticity = process.stochasticity if isinstance(process, ReverseSDE) else None
    leaves, structure = jax.tree.flatten((solver, process.sde, stochasticity))
    usual = type(process) in (ReverseSDE, ProbabilityFlow) and jax.sharding.get_abstract_mesh().empty
    if not usual or not all(type(leaf) in (float, int, bool) for leaf in leaves):
        return None
    numbers = tuple((type(leaf), leaf.hex() if type(leaf) is float else leaf) for leaf in leaves)
    kind = type(process), process.condition is None, clock.dtype.str, bool(jax.config.read("jax_enable_x64"))
    asked = _Asked((structure, numbers, kind, clock.tobytes()))
    asked.parts = solver, process.sde, stochasticity, clock
    try:
        return _known_once(asked)
    except jax.errors.UnexpectedTracerError:  # which is not kept
        return None
    finally:
        del asked.parts  # the key is kept, and would keep them


class _Asked:
    """A solver, a process and a grid, equal to others that give the same numbers."""

    parts: tuple[AbstractReverseSolver, Any, Any, np.ndarray]

    def __init__(self, key: Any):
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(maxsize=KEPT)
def _known_once(asked: _Asked) -> Known | None:
    solver, sde, stochasticity, clock = asked.parts
    _, _, (kind, unconditional, *_), _ = asked.key
    level = {} if stochasticity is None else {"stochasticity": stochasticity}
    process = kind(sde, _NotThere(), condition=None if unconditional else _NotThere(), **level)
    try:
        with jax.core.eval_context():  # also while something else is traced
            numbers, sigma = _compiled(as_arrays(solver), as_arrays(process), clock)
    except _AskedForScoreError:
        return None
    return Known(jax.tree.map(np.asarray, numbers), bool(np.all(np.asarray(sigma) > 0.0)))


@eqx.filter_jit
def _compiled(solver: AbstractReverseSolver, process: AbstractReverseProcess, clock: Any) -> tuple[GridNumbers, Any]:
    clock, sde = jnp.asarray(clock), process.sde
    sigma = sde.sigma(-clock[-1]) if isinstance(sde, AbstractAffineSDE) else jnp.zeros(())
    return grid_numbers(solver, process, clock), sigma


class _AskedForScoreError(AttributeError):
    pass


class _NotThere(eqx.Module):
    """Stands for the score and the condition: what depends on them is not kept."""

    def __call__(self, *args: Any) -> Any:
        raise _AskedForScoreError("the score")

    def __getattr__(self, name: str) -> Any:
        raise _AskedForScoreError(name)
