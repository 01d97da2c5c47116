r"""diffrax's own solvers on a reverse process: which of them apply, their terms, and what they cost.

In the clock s = -t the probability flow is `ODETerm(-drift)` and the reverse SDE adds the noise as a `NoiseTerm`. The
noise does not depend on the state, so Itô and Stratonovich agree.
"""

from typing import cast

import diffrax
import equinox as eqx
import jax
import numpy as np

from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess
from sdelab.solvers.base import check_kind

IMEX = (diffrax.KenCarp3, diffrax.KenCarp4, diffrax.KenCarp5, diffrax.Sil3)
SDE_ONLY = (
    diffrax.AbstractSRK,
    diffrax.EulerHeun,
    diffrax.ItoMilstein,
    diffrax.StratonovichMilstein,
)
OTHER_EQUATIONS = (diffrax.ALIGN, diffrax.ShOULD, diffrax.QUICSORT, diffrax.SemiImplicitEuler)


AT_THE_START_ONLY = (diffrax.Euler, diffrax.EulerHeun, diffrax.ItoMilstein, diffrax.StratonovichMilstein)


class NoiseTerm(diffrax.AbstractTerm):
    r"""$c\,g(t)\,dw$: a scalar vector field times the increments of a Brownian path of the state's shape."""

    path: diffrax.AbstractBrownianPath

    def vf(self, t, y: State, args: AbstractReverseProcess):
        return args.diffusion(-t)

    def contr(self, t0, t1, **kwargs):
        return self.path.evaluate(t0, t1, **kwargs)

    def prod(self, vf, control) -> State:
        return jax.tree.map(lambda w: vf * w, control)


def check_diffrax_solver(solver: diffrax.AbstractSolver, process: AbstractReverseProcess) -> None:
    """Errors: a solver of other equations; a deterministic solver on a reverse SDE or the converse."""
    name, inner = type(solver).__name__, unwrap(solver)
    if isinstance(inner, OTHER_EQUATIONS):
        raise TypeError(
            f"diffrax.{name} solves partitioned equations (underdamped Langevin, Hamiltonian); a reverse process is "
            "not one. Accepted: diffrax's other ODE and SDE solvers, and sdelab's."
        )
    if process.stochastic and not isinstance(inner, (diffrax.AbstractItoSolver, diffrax.AbstractStratonovichSolver)):
        check_kind(f"diffrax.{name}", "deterministic", process)
    if isinstance(inner, SDE_ONLY):
        check_kind(f"diffrax.{name}", "stochastic", process)


def check_diffrax_steps(
    solver: diffrax.AbstractSolver, process: AbstractReverseProcess, on_grid: bool, to_data: bool
) -> None:
    """Errors: what a solver cannot do on these steps."""
    name = type(solver).__name__
    if on_grid and process.stochastic and isinstance(solver, diffrax.HalfSolver):
        raise TypeError(
            f"diffrax.{name} halves the intervals of the grid, on which the noise is given; accepted: the solver that "
            "it wraps, or ShARK, SRA1 or SPaRK with tolerances."
        )
    if to_data and not isinstance(solver, AT_THE_START_ONLY):
        raise ValueError(
            f"grid ends where sigma = 0, and diffrax.{name} evaluates the score there; accepted: a grid that ends at "
            "t > 0, or one of "
            + ", ".join(f"diffrax.{kind.__name__}" for kind in AT_THE_START_ONLY)
            + ", sdelab's own."
        )


def reverse_terms(
    solver: diffrax.AbstractSolver, process: AbstractReverseProcess, path: diffrax.AbstractBrownianPath | None
) -> diffrax.AbstractTerm:
    """The terms of the reverse process in the clock s = -t; `path` is None for a probability flow."""
    drift = diffrax.ODETerm(lambda s, x, args: -args.drift(x, -s))
    if path is not None:
        return diffrax.MultiTerm(drift, NoiseTerm(path))
    if isinstance(unwrap(solver), IMEX):  # the score explicitly, the linear part, which is stiff at t_max, implicitly
        linear = diffrax.ODETerm(lambda s, x, args: -args.sde.drift(x, -s))
        rest = diffrax.ODETerm(lambda s, x, args: -(args.drift(x, -s) - args.sde.drift(x, -s)))
        return diffrax.MultiTerm(rest, linear)
    return drift


def levy_area(solver: diffrax.AbstractSolver) -> type:
    """The kind of increments that the solver asks of a Brownian path."""
    return diffrax.SpaceTimeLevyArea if isinstance(unwrap(solver), diffrax.AbstractSRK) else diffrax.BrownianIncrement


def is_implicit(solver: diffrax.AbstractSolver) -> bool:
    return isinstance(unwrap(solver), diffrax.AbstractImplicitSolver)


def is_per_sample(solver: diffrax.AbstractSolver) -> bool:
    """Whether the solver forms a Jacobian, which over a batch would be dense: such a one solves each sample alone."""
    return is_implicit(solver) or isinstance(unwrap(solver), diffrax.ItoMilstein)


def is_adaptive(solver: diffrax.AbstractSolver, *, stochastic: bool) -> bool:
    """Whether the solver estimates its local error: on a reverse SDE only some stochastic Runge-Kutta methods do."""
    if stochastic or isinstance(solver, diffrax.AbstractSRK):
        return stochastic and isinstance(solver, diffrax.AbstractSRK) and solver.tableau.b_error is not None
    return isinstance(solver, (diffrax.HalfSolver, diffrax.AbstractAdaptiveSolver))


def unwrap(solver: diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    return unwrap(solver.solver) if isinstance(solver, diffrax.AbstractWrappedSolver) else solver


class Cost(eqx.Module):
    """Evaluations of the drift: `per_step` in every step, accepted or rejected, and `once` in the first."""

    per_step: int = eqx.field(static=True)
    once: int = eqx.field(static=True, default=0)


def cost(solver: diffrax.AbstractSolver) -> Cost | None:
    """What an explicit diffrax solver costs; None for implicit ones, whose root finds take as long as they take.

    Where the last stage of a step is the first of the next ("FSAL") it is evaluated once only.
    """
    if isinstance(solver, diffrax.HalfSolver):
        inner = cost(solver.solver)
        return None if inner is None else Cost(3 * inner.per_step, 2 * inner.once)
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        return None
    if isinstance(solver, diffrax.AbstractERK):
        tableau = cast(diffrax.ButcherTableau, solver.tableau)
        return Cost(tableau.num_stages - 1, 1) if tableau.fsal else Cost(tableau.num_stages)
    if isinstance(solver, diffrax.AbstractSRK):
        skipped = solver.tableau.ignore_stage_f
        stages = len(solver.tableau.b_sol) - (0 if skipped is None else int(np.sum(skipped)))
        return Cost(stages)
    if isinstance(solver, diffrax.ReversibleHeun):
        return Cost(1, 1)
    if isinstance(
        solver,
        (diffrax.Euler, diffrax.EulerHeun, diffrax.ItoMilstein, diffrax.StratonovichMilstein, diffrax.LeapfrogMidpoint),
    ):
        return Cost(1)
    return None
