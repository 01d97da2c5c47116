"""Does a solver do what it says? For authors of `AbstractReverseSolver`, and of diffrax solvers."""

from collections.abc import Callable
from typing import Literal

import diffrax
import jax

from sdelab._checks import check_instance, check_nonnegative
from sdelab.reverse import require_affine
from sdelab.sde import VP, AbstractAffineSDE
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.diffrax_terms import SDE_ONLY, unwrap
from sdelab.testing.report import Finding, Report, failure
from sdelab.testing.sde import first_line
from sdelab.testing.solver_case import SolverCase
from sdelab.testing.solver_runs import companions, gradients, precision, second_call
from sdelab.testing.solver_steps import evaluations, last_step, moments, one_small_step, order, same_twice

Check = Callable[[SolverCase], list[Finding]]

CHECKS: dict[str, Check] = {
    "small step": one_small_step,
    "order": order,
    "moments": moments,
    "evaluations": evaluations,
    "memory": same_twice,
    "last step": last_step,
    "second call": second_call,
    "gradients": gradients,
    "batch": companions,
    "precision": precision,
}


def check_solver(solver: diffrax.AbstractSolver, *, sde: AbstractAffineSDE | None = None, bias: float = 0.0) -> Report:
    r"""Raises a `ValueError` that lists everything that `solver` does not do as it says; returns the report otherwise.

    In float64, on exact scores: a small step follows drift and diffusion; the order on the flow of a Gaussian and of a
    mixture, or the weak order on the reverse SDE of a Gaussian (mean and variance propagated exactly), is at least
    the claimed one, `claimed_order()`, less 0.2; mean and covariance of a mixture are right from `t_max` to `t_min`, up to four
    standard errors and the bias that two step sizes show; the declared evaluations are those made; nothing is
    remembered from one run to the next; a last step to $\sigma = 0$ is finite; a second call of `sample` compiles nothing;
    under `jit` it is the same; gradients by the state and by the score's parameters are those of finite differences; a sample
    does not depend on its companions; float32 stays float32. A solver that claims no order is not held to one.

    `sde` is the process of the checks, by default `VP()`. `bias` is the error of the moments, relative to the
    standard deviation, that a method has however small its steps: that of a Langevin corrector with snr r is about
    $r^2$. Takes 10 to 20 seconds: almost all of it is compilation.
    """
    report = report_solver(solver, sde=sde, bias=bias)
    if report.failures:
        raise ValueError(str(report))
    return report


def report_solver(solver: diffrax.AbstractSolver, *, sde: AbstractAffineSDE | None = None, bias: float = 0.0) -> Report:
    """What `check_solver` looks at, as a `Report`, whatever it finds."""
    check_instance(diffrax.AbstractSolver, solver=solver)
    check_nonnegative(bias=bias)
    process = VP() if sde is None else require_affine(sde, "check_solver")
    findings = [finding for name in CHECKS for finding in findings_of(name, solver, process, bias)]
    return Report(type(solver).__name__, tuple(findings))


def findings_of(name: str, solver: diffrax.AbstractSolver, sde: AbstractAffineSDE, bias: float = 0.0) -> list[Finding]:
    """One of `CHECKS`, on the probability flow or the reverse SDE or both, as the solver is for."""
    findings = []
    for kind in kinds(solver):
        with jax.enable_x64(True):
            case = SolverCase(solver, kind, sde, bias)
            findings += _guarded(name, CHECKS[name], case)
    return findings


def kinds(solver: diffrax.AbstractSolver) -> tuple[Literal["deterministic", "stochastic"], ...]:
    """The kinds of process that a solver is for: some of diffrax's are for both."""
    if isinstance(solver, AbstractReverseSolver):
        return (solver.kind,)
    inner = unwrap(solver)
    if isinstance(inner, SDE_ONLY):
        return ("stochastic",)
    if isinstance(inner, (diffrax.AbstractItoSolver, diffrax.AbstractStratonovichSolver)):
        return ("deterministic", "stochastic")
    return ("deterministic",)


def _guarded(name: str, check: Check, case: SolverCase) -> list[Finding]:
    """An error inside the author's own code is a finding too."""
    try:
        return check(case)
    except Exception as error:
        return [failure(name, f"could not be carried out, {type(error).__name__}: {first_line(error)}")]
