"""What a solve is asked for, checked and made ready before anything is compiled."""

import functools
import operator
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sdelab import grids
from sdelab._checks import check_positive
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess
from sdelab.sde import AbstractSDE
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.diffrax_terms import is_adaptive

DEFAULT_STEPS = 1000
DEFAULT_TOLERANCE = 1e-5


def check_start(
    key: Any, process: AbstractReverseProcess, shape_or_x_T: Any, *, replayed: bool = False
) -> tuple[State | tuple[int, ...], Any]:
    """The states at the start of the grid or their shape, and their dtype; checks what they are made of.

    `replayed`: whether the noise on the way is given, so that none is drawn.
    """
    if not isinstance(process, AbstractReverseProcess):
        raise TypeError(f"process = {process!r} is not accepted; it must be a ReverseSDE or a ProbabilityFlow.")
    given = not isinstance(shape_or_x_T, (tuple, list))
    try:
        shape = np.shape(shape_or_x_T) if given else tuple(operator.index(n) for n in shape_or_x_T)
    except TypeError:
        raise TypeError(
            f"shape_or_x_T = {shape_or_x_T!r} is not accepted; it must be a shape of integers, or an array of states."
        ) from None
    if not shape or min(shape) < 1:
        raise ValueError(f"shape_or_x_T has shape {shape}; accepted: (batch, *event), each at least 1.")
    check_condition(process, shape[0])
    check_key(key, shape[0], needed=(process.stochastic and not replayed) or not given)
    if not given:
        return shape, jnp.result_type(float)
    start = as_states(shape_or_x_T)
    return start, start.dtype


def check_key(key: Any, batch: int, *, needed: bool) -> None:
    if key is None:
        if needed:
            raise ValueError(
                "key = None is accepted only for a probability flow from given states, which draws nothing."
            )
        return
    if not (isinstance(key, jax.Array) and _is_of(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key = {key!r} is not accepted; it must come from jax.random.key.")
    if key.shape not in ((), (batch,)):
        raise ValueError(f"key has shape {key.shape}; accepted: one key, or one per sample, shape ({batch},).")


@functools.cache
def _is_of(dtype: Any, kind: Any) -> bool:
    return jnp.issubdtype(dtype, kind)


def check_condition(process: AbstractReverseProcess, batch: int) -> None:
    if process.condition is None:
        return
    for leaf in jax.tree.leaves(process.condition):
        if np.shape(leaf)[:1] != (batch,):
            raise ValueError(
                f"condition has a leaf of shape {np.shape(leaf)}; its leading axis must be the batch, {batch}."
            )


def check_states(process: AbstractReverseProcess, x: Any) -> State:
    """Given states as a floating-point array of shape `(batch, *event)`."""
    x = as_states(x)
    if x.ndim < 1 or x.size == 0:
        raise ValueError(f"x has shape {x.shape}; accepted: (batch, *event), each at least 1.")
    check_condition(process, x.shape[0])
    return x


def as_states(x: Any) -> State:
    """A floating-point array; integers become floats."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    return x if _is_of(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def check_starts_at_prior(times: grids.Grid, sde: AbstractSDE, otherwise: str) -> None:
    """The prior is that of `t_max`: a grid that starts below it needs something else."""
    if times[0] < sde.t_max * (1 - 1e-6):
        raise ValueError(
            f"grid starts at t = {times[0]}, and the prior is that of t_max = {sde.t_max}; accepted: {otherwise}, or a "
            "grid from t_max."
        )


def as_clock(times: np.ndarray, dtype: Any) -> Float[np.ndarray, " steps_plus_1"]:
    """Increasing times in the state's precision, and never below float32, where they must still be apart."""
    clock = np.asarray(times, np.float64 if dtype == jnp.float64 else np.float32)
    if not (clock[1:] > clock[:-1]).all():
        where = int(np.argmax(clock[1:] <= clock[:-1]))
        raise ValueError(
            f"grid has two times that {clock.dtype} does not tell apart, near {abs(times[where])}; accepted: times further apart, "
            "or a float64 state under jax.enable_x64."
        )
    return clock


def plan_steps(
    process: AbstractReverseProcess,
    solver: diffrax.AbstractSolver,
    grid: grids.GridLike | None,
    rtol: float | None,
    atol: float | None,
    dtype: Any,
) -> tuple[grids.Grid, diffrax.PIDController | None]:
    """The times, and the controller of adaptive steps, None on a fixed grid."""
    own = isinstance(solver, AbstractReverseSolver)
    if not own and not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(f"solver = {solver!r} is not a solver; accepted: one of sdelab.solvers, or a diffrax solver.")
    if own and grid is not None and rtol is None and atol is None:
        return grids.check_grid(grid, process.sde), None
    adaptive = not own and is_adaptive(solver, stochastic=process.stochastic)
    if grid is None and rtol is None and atol is None and not process.stochastic and adaptive:
        rtol = DEFAULT_TOLERANCE
    if rtol is None and atol is None:
        chosen = grids.uniform(process.sde, DEFAULT_STEPS) if grid is None else grid
        return grids.check_grid(chosen, process.sde), None
    ends = np.array([process.sde.t_max, process.sde.t_min]) if grid is None else grid
    times = grids.check_grid(ends, process.sde)
    if not adaptive:
        raise ValueError(
            f"rtol = {rtol}, atol = {atol}: {type(solver).__name__} has no error estimate of a "
            f"{type(process).__name__} and takes a grid. Adaptive: "
            "diffrax's Heun, Midpoint, Ralston, Bosh3, Tsit5, Dopri5, Dopri8, Kvaerno3/4/5, KenCarp3/4/5, "
            "ImplicitEuler and HalfSolver on a probability flow; ShARK, SRA1, SPaRK on a reverse SDE."
        )
    given = [tolerance for tolerance in (rtol, atol) if tolerance is not None]
    relative, absolute = given[0], given[-1]
    check_positive(rtol=relative, atol=absolute)
    if dtype != jnp.float64 and min(given) < 1e-6:
        raise ValueError(
            f"rtol = {relative}, atol = {absolute}: below 1e-6 a float32 state cannot meet the tolerance; accepted: >= 1e-6, or "
            "a float64 state under jax.enable_x64 (the network may stay float32)."
        )
    return times, diffrax.PIDController(rtol=jnp.asarray(relative), atol=jnp.asarray(absolute))
