"""Sampling: any solver, on a fixed grid or adaptively, from noise to data and back."""

import functools
from typing import Any, NamedTuple, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from sdelab import grids
from sdelab._callable import with_arguments_of
from sdelab._checks import check_count
from sdelab._compile import jit
from sdelab._typing import PRNGKeys, State
from sdelab.adjoint import ReplayAcceptedSteps as ReplayAcceptedSteps
from sdelab.adjoint import check_adjoint, check_replay
from sdelab.arguments import (
    as_clock,
    check_start,
    check_starts_at_prior,
    check_states,
    plan_steps,
)
from sdelab.forward import check_flow, check_forward_solver, check_starts_above_data, integrate_forwards
from sdelab.integration import (
    Joint,
    PerSample,
    Solution,
    check_success,
    solve_adaptively,
    solve_on_grid,
    total_evaluations,
)
from sdelab.known_numbers import known_numbers
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, ends_at_data
from sdelab.solvers.base import AbstractReverseSolver, GridNumbers
from sdelab.solvers.diffrax_terms import check_diffrax_solver, check_diffrax_steps, cost, is_adaptive, is_per_sample
from sdelab.solvers.finish import AbstractFinish, NoFinish, NoiselessPredictor
from sdelab.solvers.noise import AbstractNoise, KeyedNoise, NoNoise, StoredNoise, sample_keys
from sdelab.solvers.runge_kutta import with_known_numbers

AT_THE_END = diffrax.SaveAt(t1=True)
ROUND_TRIP_TOLERANCE = 1e-6  # of encode and decode: the least that float32 admits


class SampleInfo(eqx.Module):
    """What a person wants to know of a solve; each array has one number per sample.

    `evaluations` of the score, rejected steps, a replay and the finish included, or None for implicit solvers, whose root
    finds are not counted; `accepted` and `rejected` steps, the same for every sample of a `Joint()` solve; `result`,
    diffrax's result code.
    """

    evaluations: Int[Array, " batch"] | None
    accepted: Int[Array, " batch"]
    rejected: Int[Array, " batch"]
    result: Any


class _Plan(NamedTuple):
    """All of a solve, but for its solver, that is structure: the key of the compiled program, with the arrays' shapes."""

    finish: AbstractFinish
    controller: diffrax.PIDController | None
    control: Joint | PerSample
    adjoint: diffrax.AbstractAdjoint
    saveat: diffrax.SaveAt
    max_steps: int
    to_data: bool


def sample_with_info(
    key: Key[Array, "..."] | None,
    process: AbstractReverseProcess,
    shape_or_x_T: tuple[int, ...] | State,
    *,
    solver: diffrax.AbstractSolver,
    grid: grids.GridLike | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    finish: AbstractFinish = NoFinish(),
    noise: AbstractNoise | None = None,
    error_control: Joint | PerSample = PerSample(),
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(),
    max_steps: int = 4096,
    throw: bool = True,
) -> tuple[State, SampleInfo]:
    """Draws samples of shape `(batch, *event)`, and says what it cost.

    `key`: one key, from which sample i takes `fold_in(key, i)`, or `(batch,)` keys, one per sample
    (`solvers.sample_keys`); None where nothing is drawn. `shape_or_x_T`: the shape, to start from the prior, or the
    states at the start. `solver`: one of `sdelab.solvers` or a diffrax solver. `grid`: decreasing times; its ends are
    the interval (default `t_max` to `t_min`) and, without tolerances, its points the steps. `rtol`, `atol`: relative
    and absolute tolerance of adaptive steps, of which one alone stands for both; `error_control`, `PerSample()` or
    `Joint()`, and `max_steps` belong to them. With neither grid nor tolerances: 1 000 uniform steps, or tolerances
    of 1e-5 for a diffrax solver with an error estimate on a probability flow. `finish`: `solvers.NoFinish()`,
    `Tweedie()`, `NoiselessPredictor()` or `NoiselessStep(solver)`. `noise`: `solvers.StoredNoise` to replay a run.

    Gradients with respect to the start, the condition and whatever numbers the process holds (a network's parameters,
    `beta_max`; not the times, which are constants) go through the solve by `adjoint`: `diffrax.RecursiveCheckpointAdjoint()`
    (the default) and `DirectAdjoint()` differentiate the steps; `ForwardMode()` is for `jax.jvp`; `ReplayAcceptedSteps()`
    differentiates adaptive steps as a fixed grid; `BacksolveAdjoint()`, approximate and of constant memory, is for a
    probability flow by diffrax's explicit ODE solvers, and sees what is in `process` but nothing that a function closes over.

    A second call with the same shapes and the same score does not compile again. Errors: a solver that does not fit
    the process, a grid that does not decrease in the interval, tolerances below float32; with `throw`, a solve that
    exhausts `max_steps` is a `RuntimeError`.
    """
    start, dtype = check_start(key, process, shape_or_x_T, replayed=noise is not None)
    times, controller = plan_steps(process, solver, grid, rtol, atol, dtype)
    to_data = ends_at_data(process.sde, float(times[-1]))
    plan = _Plan(finish, controller, error_control, adjoint, AT_THE_END, max_steps, to_data)
    solved = _solve(key, process, start, times, noise, solver, plan, throw=throw)
    return solved.x, solved.info


@with_arguments_of(sample_with_info)
def sample(*args: Any, **kwargs: Any) -> State:
    """Draws samples: `sample_with_info`, with the same arguments, without the information."""
    return sample_with_info(*args, **kwargs)[0]


def trajectory(
    key: Key[Array, "..."] | None,
    process: AbstractReverseProcess,
    shape_or_x_T: tuple[int, ...] | State,
    *,
    solver: diffrax.AbstractSolver,
    grid: grids.GridLike | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    noise: AbstractNoise | None = None,
    error_control: Joint | PerSample = PerSample(),
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(),
    max_steps: int = 4096,
) -> tuple[Float[Array, " times"], Float[Array, "times batch ..."]]:
    """The times of the grid and the states at them, `(n + 1,)` and `(n + 1, batch, *event)`; arguments as `sample`.

    Without tolerances the states are those between the steps; with them the solver's interpolant is read at the grid's
    times. The last state is the sample that `sample` draws with the same arguments and `NoFinish()`. Errors:
    `BacksolveAdjoint` without tolerances.
    """
    start, dtype = check_start(key, process, shape_or_x_T, replayed=noise is not None)
    times, controller = plan_steps(process, solver, grid, rtol, atol, dtype)
    if controller is not None and grid is None:
        times = grids.uniform(process.sde, 100)
    if controller is None and isinstance(adjoint, diffrax.BacksolveAdjoint):
        raise ValueError("BacksolveAdjoint keeps no steps of a grid; accepted: tolerances, or another adjoint.")
    clock = jnp.asarray(as_clock(-times, dtype))
    saveat = diffrax.SaveAt(t0=True, steps=True) if controller is None else diffrax.SaveAt(ts=clock)
    to_data = ends_at_data(process.sde, float(times[-1]))
    plan = _Plan(NoFinish(), controller, error_control, adjoint, saveat, max_steps, to_data)
    states = _solve(key, process, start, times, noise, solver, plan).states
    assert states is not None
    return -clock, states


def encode(
    process: ProbabilityFlow,
    x0: State,
    *,
    solver: diffrax.AbstractSolver | None = None,
    grid: grids.GridLike | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    error_control: Joint | PerSample = PerSample(),
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(),
    max_steps: int = 4096,
) -> State:
    """The latent code: the state at `t_max` of the probability flow that passes through `x0` at the end of the grid.

    A process of its own in increasing time, by a diffrax ODE solver (default `diffrax.Tsit5()`), per sample when
    adaptive. With neither grid nor tolerances the tolerance is 1e-6, a tenth of `sample`'s, so that `decode`, its inverse
    with the same arguments, gives `x0` back to 1e-4: errors of the tolerance grow where the flow parts. `grid` decreases,
    as in `sample`, and must end where sigma > 0.
    """
    check_flow(process, "encode")
    x0 = check_states(process, x0)
    solver = diffrax.Tsit5() if solver is None else solver
    check_forward_solver(solver, process)
    check_adjoint(adjoint, solver, process)
    rtol = _round_trip_rtol(solver, grid, rtol, atol)
    times, controller = plan_steps(process, solver, grid, rtol, atol, x0.dtype)
    check_starts_above_data(process, times)
    return integrate_forwards(
        process, x0, times, solver, controller, max_steps, error_control=error_control, adjoint=adjoint
    )


def decode(
    process: ProbabilityFlow,
    z: State,
    *,
    solver: diffrax.AbstractSolver | None = None,
    grid: grids.GridLike | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    error_control: Joint | PerSample = PerSample(),
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(),
    max_steps: int = 4096,
) -> State:
    """The sample of a latent code `z`, the state at `t_max`: the inverse of `encode`, with the same arguments and defaults.

    It is `sample` from `z`; what `encode` refuses, a solver that steps backwards only, is refused here too.
    """
    check_flow(process, "decode")
    z = check_states(process, z)
    solver = diffrax.Tsit5() if solver is None else solver
    check_forward_solver(solver, process)
    rtol = _round_trip_rtol(solver, grid, rtol, atol)
    steps: dict[str, Any] = dict(grid=grid, rtol=rtol, atol=atol, error_control=error_control, max_steps=max_steps)
    return sample(None, process, z, solver=solver, adjoint=adjoint, **steps)


def _round_trip_rtol(
    solver: diffrax.AbstractSolver, grid: grids.GridLike | None, rtol: float | None, atol: float | None
) -> float | None:
    unasked = grid is None and rtol is None and atol is None
    return ROUND_TRIP_TOLERANCE if unasked and is_adaptive(solver, stochastic=False) else rtol


def _solve(
    key: Key[Array, "..."] | None,
    process: AbstractReverseProcess,
    start: State | tuple[int, ...],
    times: grids.Grid,
    noise: AbstractNoise | None,
    solver: diffrax.AbstractSolver,
    plan: _Plan,
    *,
    throw: bool = True,
) -> "_Solved":
    """What is asked for is checked, run, and checked for its success."""
    if isinstance(start, tuple):
        check_starts_at_prior(times, process.sde, "the states there as shape_or_x_T")
    _check_plan(plan, noise, len(times) - 1)
    dtype = jnp.result_type(float) if isinstance(start, tuple) else start.dtype
    clock, known = as_clock(-times, dtype), None
    if isinstance(solver, AbstractReverseSolver):
        type(solver).check(solver, process)  # `solver.check` would make a module of the method, in every call
        check_adjoint(plan.adjoint, solver, process)
        known = known_numbers(solver, process, clock)
        ours, theirs = solver, None
    else:
        check_diffrax_solver(solver, process)
        check_diffrax_steps(solver, process, plan.controller is None, plan.to_data)
        check_adjoint(plan.adjoint, solver, process)
        ours, theirs = _stepped_by_us(solver, process, plan), solver
        if ours is not None:
            theirs, known = None, known_numbers(ours, process, clock)
    numbers, above_data = (None, False) if known is None else known
    solved = _run(process, ours, start, key, clock, noise, theirs, numbers, above_data, plan)
    if throw and theirs is not None and (plan.controller is not None or is_per_sample(theirs)):
        # explicit steps on a fixed grid always arrive: then nothing is read back, and the call does not wait
        info = solved.info
        check_replay(plan.adjoint, info.accepted)
        check_success(solved.success, info.result, info.accepted + info.rejected, plan.max_steps)
    return solved


def _stepped_by_us(
    solver: diffrax.AbstractSolver, process: AbstractReverseProcess, plan: _Plan
) -> AbstractReverseSolver | None:
    """On a grid some of diffrax's methods have a faster form; `BacksolveAdjoint` needs an ODE, `NoiselessPredictor` refuses both."""
    others = isinstance(plan.adjoint, diffrax.BacksolveAdjoint) or isinstance(plan.finish, NoiselessPredictor)
    if plan.controller is not None or others:
        return None
    return with_known_numbers(solver, process)


class _Solved(NamedTuple):
    """The samples; the saved states, `(saved, batch, *event)`, None where the last alone was asked for; how it went.

    `x_mean`, the last step's of a reverse SDE by a solver of ours, is not read by anyone. It is here to be kept: where nobody wants
    the mean of a step, XLA computes it in one kernel with the noise, which on CPU takes a third longer with two noises.
    """

    x: State
    x_mean: State | None
    states: Float[Array, "saved batch ..."] | None
    success: Bool[Array, " batch"]
    info: SampleInfo


@functools.partial(jit, numbers=2)
def _run(
    process: AbstractReverseProcess,
    ours: AbstractReverseSolver | None,
    start: State | tuple[int, ...],
    key: Key[Array, "..."] | None,
    clock: Float[Array | np.ndarray, " steps_plus_1"],
    noise: AbstractNoise | None,
    theirs: diffrax.AbstractSolver | None,
    known: GridNumbers | None,
    above_data: bool,
    plan: _Plan,
) -> _Solved:
    """Start, solve and finish, in one compiled program, and what it evaluates. Each sample draws from its own key.

    The solver is `ours`, or one of diffrax, which looks at its own numbers while it traces: they remain Python's.
    """
    solver = theirs if ours is None else ours
    assert solver is not None
    batch = start[0] if isinstance(start, tuple) else start.shape[0]
    keys, clock = sample_keys(key, batch) if key is not None and key.ndim == 0 else key, jnp.asarray(clock)
    path_keys = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
    x_T = draw_prior(process, cast(PRNGKeys, keys), start[1:]) if isinstance(start, tuple) else start
    if plan.controller is None:
        own = NoNoise() if path_keys is None else KeyedNoise(path_keys)
        noise = own if noise is None else noise
        solution = solve_on_grid(
            process, x_T, clock, solver, noise, plan.adjoint, plan.saveat, known=known, above_data=above_data
        )
    else:
        solution = solve_adaptively(
            process,
            x_T,
            clock,
            solver,
            path_keys,
            plan.controller,
            plan.control,
            plan.adjoint,
            plan.saveat,
            plan.max_steps,
        )
    x = plan.finish.apply(process, solution.states[-1], solution.x_mean, -clock[-1], plan.to_data)
    evaluations = _evaluations(process, solution, solver, plan, clock.shape[0] - 1)
    info = SampleInfo(evaluations, solution.accepted, solution.rejected, solution.result)
    return _Solved(
        x,
        solution.x_mean if process.stochastic else None,
        None if plan.saveat.subs.t1 else solution.states,
        solution.success,
        info,
    )


def draw_prior(process: AbstractReverseProcess, keys: PRNGKeys, event: tuple[int, ...]) -> State:
    """The states from which `sample` starts, each from its own key."""
    return jax.vmap(lambda key: process.sde.prior_sample(jax.random.fold_in(key, 0), (1, *event))[0])(keys)


def _check_plan(plan: _Plan, noise: AbstractNoise | None, steps: int) -> None:
    check_count(max_steps=plan.max_steps)
    if not isinstance(plan.control, (Joint, PerSample)):
        raise TypeError(f"error_control = {plan.control!r} is not accepted; it must be PerSample() or Joint().")
    if not isinstance(plan.finish, AbstractFinish):
        raise TypeError(
            f"finish = {plan.finish!r} is not accepted; it must be NoFinish(), Tweedie(), NoiselessPredictor() or "
            "NoiselessStep(solver)."
        )
    if noise is not None and plan.controller is not None:
        raise ValueError("noise is given for a fixed grid; with tolerances the path must be known between the steps.")
    if isinstance(noise, StoredNoise) and noise.values.shape[0] != steps:
        raise ValueError(f"noise has {noise.values.shape[0]} steps; accepted: as many as the grid, {steps}.")


def _evaluations(
    process: AbstractReverseProcess, solution: Solution, solver: diffrax.AbstractSolver, plan: _Plan, steps: int
) -> Int[Array, " batch"] | None:
    finish = plan.finish.evaluations(process, plan.to_data)
    if isinstance(solver, AbstractReverseSolver):
        return jnp.full_like(solution.accepted, solver.evaluations(steps, plan.to_data) + finish)
    first = total_evaluations(cost(solver), solution.accepted + solution.rejected, finish)
    if first is None or plan.controller is None or not isinstance(plan.adjoint, ReplayAcceptedSteps):
        return first
    return first + cast(Array, total_evaluations(cost(solver), solution.accepted, 0))
