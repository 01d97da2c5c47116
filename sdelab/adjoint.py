"""How gradients go through a solve: diffrax's adjoints where they have a meaning, and a replay of the accepted steps."""

from typing import Any, ClassVar, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab._checks import check_count, is_concrete
from sdelab.grid_loop import GridLoop
from sdelab.reverse import AbstractReverseProcess
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.diffrax_terms import IMEX, is_implicit, unwrap

ACCEPTED = (
    "RecursiveCheckpointAdjoint(), DirectAdjoint(), ForwardMode(), ReplayAcceptedSteps(), or, for a probability flow by "
    "an explicit ODE solver of diffrax, BacksolveAdjoint()"
)


class ReplayAcceptedSteps(diffrax.AbstractAdjoint):
    r"""Differentiates an adaptive solve as one with fixed steps: those that its controller has accepted.

    The solve is run once without derivatives, and the times $s_0 < s_1 < \dots < s_n$ of its accepted steps are kept, for
    each sample its own where the steps are per sample. Then the fixed-step solve over exactly these times is run and
    differentiated. The value is that of the adaptive solve, to rounding. The gradient is the exact one of the fixed-step
    map $x_T \mapsto x_0$ at constant times: the error estimate, the controller and rejected steps have no part in it, and
    the way back holds and recomputes accepted steps only. Finite differences of the adaptive solve itself would jump
    wherever a step is accepted or rejected. The price is one solve more, forwards and without derivatives.

    diffrax's own controllers too take their factors for constants, so that `RecursiveCheckpointAdjoint` gives the same
    gradient; it checkpoints for `max_steps` steps, and goes back through the rejected ones. On a given grid there is
    nothing to record, and `adjoint` is used as it is. Samples with fewer steps than the others wait at the end of the
    interval, where nothing is added to their states or gradients.

    Fields: `steps`: an upper bound on the accepted steps, for which memory is set aside; by default the solve's
    `max_steps`. A solve that accepts more does not arrive. `adjoint`: what differentiates the second run,
    `diffrax.RecursiveCheckpointAdjoint()` (the default), `DirectAdjoint()` or `ForwardMode()`.
    """

    steps: int | None = eqx.field(default=None, static=True)
    adjoint: diffrax.AbstractAdjoint = eqx.field(default_factory=diffrax.RecursiveCheckpointAdjoint)
    replayed_by: ClassVar = (diffrax.RecursiveCheckpointAdjoint, diffrax.DirectAdjoint, diffrax.ForwardMode)

    def __check_init__(self):
        if self.steps is not None:
            check_count(steps=self.steps)
        if not isinstance(self.adjoint, self.replayed_by):
            raise TypeError(
                f"adjoint = {self.adjoint!r} is not accepted by ReplayAcceptedSteps; it must be "
                "RecursiveCheckpointAdjoint(), DirectAdjoint() or ForwardMode()."
            )

    def loop(self, *, stepsize_controller, init_state, max_steps, event, **solve) -> Any:
        """What `diffrax.diffeqsolve` calls: the two runs, and the first one's count of rejected steps."""
        if isinstance(stepsize_controller, (diffrax.StepTo, diffrax.ConstantStepSize)):
            unchanged = dict(stepsize_controller=stepsize_controller, init_state=init_state, max_steps=max_steps)
            return self.adjoint.loop(**unchanged, event=event, **solve)
        if event is not None:
            raise NotImplementedError("ReplayAcceptedSteps does not know of events; accepted: event = None.")
        recorded = _record(stepsize_controller, init_state.y, max_steps, **solve)
        times = jax.lax.stop_gradient(cast(Array, recorded.ts))
        bound = max_steps if self.steps is None else min(self.steps, max_steps)
        fits = recorded.stats["num_accepted_steps"] <= bound
        result = diffrax.RESULTS.where(fits, recorded.result, diffrax.RESULTS.max_steps_reached)
        replay = RecordedSteps(times[:bound], result)
        first, index = jnp.minimum(times[0], solve["t1"]), jnp.ones((), jnp.int32)
        init_state = eqx.tree_at(lambda s: (s.tnext, s.controller_state), init_state, (first, index))
        final, stats = self.adjoint.loop(
            stepsize_controller=replay, init_state=init_state, max_steps=bound, event=None, **solve
        )
        counts = tuple(recorded.stats[f"num_{kind}steps"] for kind in ("", "accepted_", "rejected_"))
        final = eqx.tree_at(lambda s: (s.num_steps, s.num_accepted_steps, s.num_rejected_steps), final, counts)
        return final, stats


class RecordedSteps(diffrax.AbstractStepSizeController):
    """Steps to given increasing times, padded with infinity, of a solve that ended in `result`.

    Where it did not arrive, neither does this one: it stops after its first step, with that result.
    """

    times: Float[Array, " steps"]
    result: Any

    def wrap(self, direction: Any) -> "RecordedSteps":
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order) -> tuple[Float[Array, ""], Int[Array, ""]]:
        return self.times[0], jnp.ones((), jnp.int32)

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state) -> Any:
        index = jnp.minimum(controller_state, self.times.shape[0] - 1)
        following = jnp.maximum(self.times[index], t1)  # past the end diffrax holds it there
        return True, t1, following, False, controller_state + 1, self.result


def _record(stepsize_controller, y, max_steps, *, terms, args, solver, t0, t1, dt0, **rest) -> diffrax.Solution:
    """The times of the accepted steps, padded with infinity to `max_steps`, and diffrax's counts; no derivatives."""
    terms, args, y, stepsize_controller = _constant((terms, args, y, stepsize_controller))
    times_only = diffrax.SubSaveAt(steps=True, fn=lambda t, y, args: None)
    return diffrax.diffeqsolve(
        terms,
        solver,
        t0,
        t1,
        dt0,
        y,
        args,
        saveat=diffrax.SaveAt(subs=times_only),
        stepsize_controller=stepsize_controller,
        adjoint=diffrax.ForwardMode(),
        max_steps=max_steps,
        throw=False,
    )


def _constant(tree: Any) -> Any:
    numbers, others = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(numbers), others)


def check_adjoint(
    adjoint: diffrax.AbstractAdjoint, solver: diffrax.AbstractSolver, process: AbstractReverseProcess
) -> None:
    """Errors: no adjoint, or one without a meaning for this solver and process."""
    name = type(solver).__name__
    if not isinstance(adjoint, diffrax.AbstractAdjoint) or isinstance(adjoint, diffrax.ImplicitAdjoint):
        raise TypeError(f"adjoint = {adjoint!r} is not accepted; accepted: {ACCEPTED}.")
    if not isinstance(adjoint, diffrax.BacksolveAdjoint):
        return
    if isinstance(solver, AbstractReverseSolver):
        reason = f"{name} is a discrete rule"
    elif process.stochastic:
        reason = f"a {type(process).__name__} has noise"
    elif is_implicit(solver) or isinstance(unwrap(solver), IMEX):
        reason = f"diffrax.{name} is implicit: its Jacobian would hold every parameter of the process"
    else:
        return
    raise TypeError(
        f"BacksolveAdjoint solves the flow and its adjoint backwards as one ODE; {reason}. Accepted: {ACCEPTED}."
    )


def on_grid(
    adjoint: diffrax.AbstractAdjoint, clock: Float[Array, " steps_plus_1"], *, above_data: bool = False
) -> diffrax.AbstractAdjoint:
    """The adjoint of an explicit solve over the steps of `clock`: that of a loop over a grid, on which nothing is to be replayed.

    Backsolve goes back over the same steps, unless told otherwise.
    """
    if isinstance(adjoint, ReplayAcceptedSteps):
        adjoint = adjoint.adjoint
    if type(adjoint) is diffrax.RecursiveCheckpointAdjoint:
        return GridLoop(clock, adjoint.checkpoints, above_data)
    if not isinstance(adjoint, diffrax.BacksolveAdjoint) or "stepsize_controller" in adjoint.kwargs:
        return adjoint
    return diffrax.BacksolveAdjoint(**{"stepsize_controller": diffrax.StepTo(clock[::-1]), **adjoint.kwargs})


def check_replay(adjoint: diffrax.AbstractAdjoint, accepted: Int[Array, " batch"]) -> None:
    """A `RuntimeError` if a replay holds fewer steps than the solve has accepted."""
    bound = adjoint.steps if isinstance(adjoint, ReplayAcceptedSteps) else None
    if bound is not None and is_concrete(accepted) and int(jnp.max(accepted)) > bound:
        raise RuntimeError(
            f"adjoint = ReplayAcceptedSteps(steps={bound}): {int(jnp.max(accepted))} steps were accepted; raise steps."
        )
