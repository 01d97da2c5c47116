r"""Reverse processes through `diffrax.diffeqsolve`, once for all: fixed grids, and adaptive steps per sample or jointly.

The clock is s = -t, so that time grows along the integration.
"""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Bool, Float, Int

from sdelab._checks import is_concrete
from sdelab._host import on_host
from sdelab._typing import PRNGKeys, State
from sdelab.adjoint import on_grid
from sdelab.reverse import AbstractReverseProcess
from sdelab.solvers.base import AbstractReverseSolver, GridNumbers, reverse_term
from sdelab.solvers.diffrax_terms import Cost, is_per_sample, levy_area, reverse_terms
from sdelab.solvers.noise import AbstractNoise, GridBrownianPath

FIRST_STEP = 0.01  # of the interval: the controller adapts it, and choosing one would cost two evaluations


class Joint(eqx.Module):
    """Adaptive steps chosen for the batch as one system, as published code does: a sample depends on its companions."""


class PerSample(eqx.Module):
    """Adaptive steps chosen for each sample alone: a sample is the same in any batch."""


class Solution(eqx.Module):
    """Saved states, shape `(saved, batch, *event)`, and what the solve counted, per sample."""

    states: Float[Array, "saved batch ..."]
    x_mean: State | None
    accepted: Int[Array, " batch"]
    rejected: Int[Array, " batch"]
    success: Bool[Array, " batch"]
    result: Any


def solve_on_grid(
    process: AbstractReverseProcess,
    x_T: State,
    clock: Float[Array, " steps_plus_1"],
    solver: diffrax.AbstractSolver,
    noise: AbstractNoise,
    adjoint: diffrax.AbstractAdjoint,
    saveat: diffrax.SaveAt,
    *,
    known: GridNumbers | None = None,
    above_data: bool = False,
) -> Solution:
    """One step per interval of `clock`, the negated grid. `known`: the solver's `grid_numbers`, if there are; `above_data`:
    whether it is known to end where sigma > 0."""
    if isinstance(solver, AbstractReverseSolver):
        like = jax.ShapeDtypeStruct(x_T.shape, x_T.dtype)
        terms: Any = reverse_term(solver, process, clock, noise, like, known)
        return _collect(
            diffrax.diffeqsolve(
                terms,
                solver,
                clock[0],
                clock[-1],
                None,
                x_T,
                args=process,
                saveat=dataclasses.replace(saveat, solver_state=True),
                stepsize_controller=diffrax.StepTo(clock),
                adjoint=on_grid(adjoint, clock, above_data=above_data),
                max_steps=clock.shape[0] - 1,
                throw=False,
            ),
            x_T,
        )
    if is_per_sample(solver):
        each = jnp.arange(x_T.shape[0])
        return _each_sample(
            process, x_T, each, lambda p, x, i: _diffrax_on_grid(p, x, clock, solver, noise.only(i), adjoint, saveat)
        )
    return _diffrax_on_grid(process, x_T, clock, solver, noise, adjoint, saveat)


def _diffrax_on_grid(process, x_T, clock, solver, noise, adjoint, saveat) -> Solution:
    like = jax.ShapeDtypeStruct(x_T.shape, x_T.dtype)
    path = None
    if process.stochastic:
        path = GridBrownianPath(noise=noise, times=clock, like=like, levy_area=levy_area(solver))
    solution = diffrax.diffeqsolve(
        reverse_terms(solver, process, path),
        with_root_tolerance(solver, x_T.dtype),
        clock[0],
        clock[-1],
        None,
        x_T,
        args=process,
        saveat=saveat,
        stepsize_controller=diffrax.StepTo(clock),
        adjoint=adjoint if is_per_sample(solver) else on_grid(adjoint, clock),
        max_steps=clock.shape[0] - 1,
        throw=False,
    )
    return _collect(solution, x_T)


def solve_adaptively(
    process: AbstractReverseProcess,
    x_T: State,
    clock: Float[Array, " times"],
    solver: diffrax.AbstractSolver,
    keys: PRNGKeys | None,
    controller: diffrax.PIDController,
    control: Joint | PerSample,
    adjoint: diffrax.AbstractAdjoint,
    saveat: diffrax.SaveAt,
    max_steps: int,
) -> Solution:
    """Steps of the controller's choice from the first time of `clock`, the negated grid, to its last.

    Stochastic processes are solved per sample on a `diffrax.VirtualBrownianTree`, so that a rejected time is revisited
    on the same path; implicit solvers too are solved per sample.
    """

    start, end = clock[0], clock[-1]

    def solve(process: AbstractReverseProcess, x: State, key: Any) -> Solution:
        path = None
        if process.stochastic:
            shape, tol = jax.ShapeDtypeStruct(x.shape, x.dtype), (end - start) * 2.0**-18
            path = diffrax.VirtualBrownianTree(start, end, tol, shape, key, levy_area(solver))
        solution = diffrax.diffeqsolve(
            reverse_terms(solver, process, path),
            solver,
            start,
            end,
            FIRST_STEP * (end - start),
            x,
            args=process,
            saveat=saveat,
            stepsize_controller=controller,
            adjoint=adjoint,
            max_steps=max_steps,
            throw=False,
        )
        return _collect(solution, x)

    if isinstance(control, Joint) and not process.stochastic and not is_per_sample(solver):
        return solve(process, x_T, None)
    return _each_sample(process, x_T, keys, solve)


def check_success(success: Bool[Array, " batch"], result: Any, steps: Int[Array, " batch"], max_steps: int) -> None:
    """A `RuntimeError` that says how many samples did not arrive, and why. Inside a transformation nothing is known."""
    if not is_concrete(success) or np.all(arrived := on_host(success)):
        return
    failed, result = ~arrived, jax.tree.map(on_host, result)
    exhausted = np.asarray(jnp.broadcast_to(result == diffrax.RESULTS.max_steps_reached, failed.shape))[failed]
    reason = (
        f"max_steps = {max_steps} was exhausted after {int(np.max(on_host(steps)))} steps: raise max_steps or the "
        "tolerances, or end the grid at a larger t; or the score is not finite on the way"
        if np.all(exhausted)
        else f"diffrax says: {_message(result, failed)}"
    )
    raise RuntimeError(f"{int(failed.sum())} of {failed.size} samples did not reach the end of the interval; {reason}.")


def _message(result: Any, failed: np.ndarray) -> str:
    """The first line of diffrax's message for the first sample that failed."""
    first = int(np.argmax(failed))
    code = jax.tree.map(lambda value: value[first] if np.ndim(value) else value, result)
    return diffrax.RESULTS[code].splitlines()[0]


def total_evaluations(cost: Cost | None, steps: Int[Array, " batch"], finish: int) -> Int[Array, " batch"] | None:
    """Evaluations of the score per sample, rejected steps included; None where the solver's cost is not known."""
    if cost is None:
        return None
    return cost.per_step * steps + cost.once + finish


def _each_sample(process: AbstractReverseProcess, x_T: State, context: Any, solve) -> Solution:
    """`solve` for every sample alone, with its entry of `context`; states come back as `(saved, batch, *event)`."""

    def one(x: State, own: Any, condition: Any) -> Solution:
        alone = process.given(jax.tree.map(lambda leaf: leaf[None], condition))
        return solve(alone, x[None], own)

    solution = jax.vmap(one)(x_T, context, process.condition)
    states = jnp.moveaxis(solution.states[:, :, 0], 0, 1)
    flat = {name: getattr(solution, name)[:, 0] for name in ("accepted", "rejected", "success")}
    return Solution(states, None, result=solution.result, **flat)


def _collect(solution: diffrax.Solution, x_T: State) -> Solution:
    batch = x_T.shape[:1]
    states: Any = solution.ys
    x_mean = None
    if solution.solver_state is not None:  # that of a solver of ours; a deterministic one keeps no mean
        x_mean = states[-1] if solution.solver_state[1] is None else solution.solver_state[1]
    return Solution(
        states=states,
        x_mean=x_mean,
        accepted=jnp.broadcast_to(solution.stats["num_accepted_steps"], batch),
        rejected=jnp.broadcast_to(solution.stats["num_rejected_steps"], batch),
        success=jnp.broadcast_to(diffrax.is_successful(solution.result), batch),
        result=solution.result,
    )


def with_root_tolerance(solver: diffrax.AbstractSolver, dtype: Any) -> diffrax.AbstractSolver:
    """On a fixed grid there is no step size tolerance for an implicit solver's root finder to take over."""
    if not isinstance(solver, diffrax.AbstractImplicitSolver) or isinstance(solver.root_finder.rtol, float):
        return solver
    tolerance = 1e-4 if dtype == jnp.float32 else 1e-10  # what rounding leaves at rates of some hundreds
    return eqx.tree_at(lambda s: s.root_finder, solver, optimistix.Newton(rtol=tolerance, atol=tolerance))
