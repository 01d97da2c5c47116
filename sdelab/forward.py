"""The probability flow in increasing time, from data to latent codes, with or without its divergence.

Running forwards is an ODE of its own, for diffrax's ODE solvers: ours step backwards only.
"""

from typing import Any, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sdelab import grids
from sdelab._checks import check_count, check_instance
from sdelab._compile import as_arrays
from sdelab._typing import State
from sdelab.adjoint import ReplayAcceptedSteps, check_replay
from sdelab.arguments import as_clock
from sdelab.divergence import AbstractDivergence
from sdelab.integration import FIRST_STEP, Joint, PerSample, check_success, total_evaluations, with_root_tolerance
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, ends_at_data
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.diffrax_terms import IMEX, check_diffrax_solver, cost, is_per_sample
from sdelab.solvers.noise import sample_keys


def check_flow(process: ProbabilityFlow, user: str) -> None:
    if not isinstance(process, AbstractReverseProcess) or process.stochastic:
        raise TypeError(
            f"process = {process!r} is not accepted by {user}, which follows the flow both ways; it must be a "
            "ProbabilityFlow."
        )


def check_forward_solver(solver: diffrax.AbstractSolver, process: ProbabilityFlow) -> None:
    """Running forwards is an ODE of its own: diffrax's ODE solvers take it, ours step backwards only."""
    if isinstance(solver, (AbstractReverseSolver, *IMEX)) or not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(
            f"solver = {solver!r} is not accepted here; accepted: diffrax's ODE solvers, such as Tsit5, Dopri8, Kvaerno5."
        )
    check_diffrax_solver(solver, process)


def check_starts_above_data(process: ProbabilityFlow, times: grids.Grid) -> None:
    """The flow runs from the last of the decreasing `times`. Errors: there sigma = 0, and noise/sigma is not a number."""
    if ends_at_data(process.sde, float(times[-1])):
        raise ValueError(
            f"grid ends at t = {times[-1]}, where sigma = 0 and the score is not defined; accepted: t > 0."
        )


class ForwardPlan(eqx.Module):
    """The times, and all of a solve that is structure: with the shapes of the arrays, the key of its program."""

    clock: Float[Array | np.ndarray, " steps_plus_1"]
    solver: diffrax.AbstractSolver
    controller: diffrax.PIDController | None
    control: Joint | PerSample
    adjoint: diffrax.AbstractAdjoint
    max_steps: int = eqx.field(static=True)

    def __check_init__(self):
        check_count(max_steps=self.max_steps)
        if not isinstance(self.control, (Joint, PerSample)):
            raise TypeError(f"error_control = {self.control!r} is not accepted; it must be PerSample() or Joint().")
        check_instance(diffrax.AbstractAdjoint, adjoint=self.adjoint)
        own_steps = isinstance(self.adjoint, diffrax.BacksolveAdjoint) and "stepsize_controller" in self.adjoint.kwargs
        if self.controller is None and isinstance(self.adjoint, diffrax.BacksolveAdjoint) and not own_steps:
            raise ValueError(
                "adjoint = BacksolveAdjoint() chooses its own steps on the way back; accepted: tolerances instead of a "
                "grid, BacksolveAdjoint(stepsize_controller=...), RecursiveCheckpointAdjoint() or DirectAdjoint()."
            )


def integrate_forwards(
    process: ProbabilityFlow,
    x: State,
    times: grids.Grid,
    solver: diffrax.AbstractSolver,
    controller: diffrax.PIDController | None,
    max_steps: int,
    *,
    error_control: Joint | PerSample = PerSample(),
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(),
) -> State:
    """The state at the grid's start of the flow that passes through `x` at its end."""
    check_forward_solver(solver, process)
    clock = as_clock(times[::-1].copy(), x.dtype)
    return solve_forwards(
        process, x, None, ForwardPlan(clock, solver, controller, error_control, adjoint, max_steps), None
    )[0]


def solve_forwards(
    process: ProbabilityFlow,
    x: State,
    key: Key[Array, "..."] | None,
    plan: ForwardPlan,
    divergence: AbstractDivergence | None,
) -> tuple[State, Float[Array, "estimates batch"] | None, dict[str, Any]]:
    solution = _integrate(as_arrays(process), x, key, plan, divergence)
    stats = solution[2]
    check_replay(plan.adjoint, stats["accepted"])
    check_success(stats["success"], stats["result"], stats["steps"], plan.max_steps)
    return solution


@eqx.filter_jit
def _integrate(
    process: ProbabilityFlow,
    x: State,
    key: Key[Array, "..."] | None,
    plan: ForwardPlan,
    divergence: AbstractDivergence | None,
) -> tuple[State, Float[Array, "estimates batch"] | None, dict[str, Any]]:
    """In increasing time, each sample alone or all as one system; the state is `(x, integral of the divergence)`."""
    keys = sample_keys(key, x.shape[0]) if key is not None and key.ndim == 0 else key
    probes = None if divergence is None else divergence.probes(keys, x)
    if isinstance(plan.control, Joint) and not is_per_sample(plan.solver):
        batch = x.shape[:1]
        latent, change, stats = _integrate_system(process, x, probes, plan, divergence)
        return latent, change, _with_evaluations(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, batch), stats), plan)

    def one(x: State, probe: Any, condition: Any) -> tuple[State, Any, dict[str, Any]]:
        alone = process.given(jax.tree.map(lambda leaf: leaf[None], condition))
        probe = None if probe is None else probe[:, None]
        return _integrate_system(alone, x[None], probe, plan, divergence)

    latent, change, stats = jax.vmap(one, (0, None if probes is None else 1, 0))(x, probes, process.condition)
    return latent[:, 0], None if change is None else change[:, :, 0].T, _with_evaluations(stats, plan)


def _integrate_system(
    process: ProbabilityFlow, x: State, probes: State | None, plan: ForwardPlan, divergence: AbstractDivergence | None
) -> tuple[State, Float[Array, "estimates batch"] | None, dict[str, Any]]:
    clock, on_grid = plan.clock, plan.controller is None
    start = None
    if divergence is not None:
        estimates = jax.eval_shape(lambda: divergence(lambda x: x, x, probes)[1])
        start = jnp.zeros(estimates.shape, x.dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_flow),
        with_root_tolerance(plan.solver, x.dtype) if on_grid else plan.solver,
        clock[0],
        clock[-1],
        None if on_grid else FIRST_STEP * (clock[-1] - clock[0]),
        (x, start),
        args=(process, probes, divergence),
        stepsize_controller=diffrax.StepTo(clock) if plan.controller is None else plan.controller,
        adjoint=plan.adjoint,
        max_steps=clock.shape[0] - 1 if on_grid else plan.max_steps,
        throw=False,
    )
    latent, change = cast(tuple[Array, Any], solution.ys)
    success = diffrax.is_successful(solution.result)
    counts = {"steps": solution.stats["num_steps"], "accepted": solution.stats["num_accepted_steps"]}
    stats = {**counts, "success": success, "result": solution.result}
    return latent[0], None if change is None else change[0], stats


def _with_evaluations(stats: dict[str, Any], plan: ForwardPlan) -> dict[str, Any]:
    evaluations = total_evaluations(cost(plan.solver), stats["steps"], 0)
    if evaluations is not None and isinstance(plan.adjoint, ReplayAcceptedSteps) and plan.controller is not None:
        evaluations = evaluations + cast(Array, total_evaluations(cost(plan.solver), stats["accepted"], 0))
    return {**stats, "evaluations": evaluations}


def _flow(t: Any, state: Any, args: Any) -> Any:
    """The vector field of `(x, integral of the divergence)`; of x alone where no divergence is asked for.

    All that it needs is in `args`: an adjoint sees no derivative in what a function has closed over.
    """
    process, probes, divergence = args
    if divergence is None:
        return process.drift(state[0], t), None
    return divergence(lambda x: process.drift(x, t), state[0], probes)
