"""Checks of a solver that need single compiled steps only. They run in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from sdelab import grids
from sdelab.exact import GaussianMixture
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.diffrax_terms import AT_THE_START_ONLY, cost
from sdelab.testing.order import (
    WEAK_STEPS,
    Convergence,
    draws_of,
    flow_problem,
    steps_for,
    two_components,
    walk,
    weak_convergence,
)
from sdelab.testing.report import Finding, Level, bounded, failure, passed
from sdelab.testing.solver_case import ObservedScore, SolverCase, deviation

SMALL = 1e-4  # of the time: a step so small that it must follow drift and diffusion
STEPS = (150, 300)
SAMPLES = 4096
LARGEST_BIAS = 0.15  # of a standard deviation, in 300 steps: beyond it two step sizes say nothing


def one_small_step(case: SolverCase) -> list[Finding]:
    """A small step moves by drift times time, and spreads by g sqrt(time)."""
    t = 0.3 * case.sde.t_max
    h = SMALL * t
    process, x, times = case.mixture_process(), case.states(two_components(), 8, t), np.array([t, t - h])
    draws = draws_of(case.solver) if case.kind == "stochastic" else 0
    silence = jnp.zeros((1, draws, *x.shape)) if draws else None
    moved = np.asarray(walk(case.solver, process, x, times, silence)) - np.asarray(x)
    expected = -h * np.asarray(process.drift(x, jnp.asarray(t)))
    share = float(np.sum(moved * expected) / np.sum(expected**2))
    words = f"a step of {h:.1e} moves {share:.3g} times as far as the drift"
    hint = {-1: ": the sign is wrong", 0: ": it does not go from t0 to t1"}.get(round(share), "")
    name = f"small step: drift{case.title}"
    findings = [_held(case, name, abs(share - 1.0), 1e-2, f"{words}", f"{words}{hint}")]
    if draws:
        variance = 0.0
        for j in range(draws):
            one = walk(case.solver, process, x, times, jnp.zeros((1, draws, *x.shape)).at[0, j].set(1.0))
            variance += np.mean((np.asarray(one) - np.asarray(x) - moved) ** 2)
        ratio = float(np.sqrt(variance / h) / process.diffusion(jnp.asarray(t)))
        words = f"the noise of a step of {h:.1e} is {ratio:.3g} times g sqrt(h)"
        hint = ": sqrt(h) is missing" if abs(ratio * math.sqrt(h) - 1.0) < 0.02 else ""
        findings.append(_held(case, f"small step: noise{case.title}", abs(ratio - 1.0), 1e-2, words, words + hint))
    return findings


def order(case: SolverCase) -> list[Finding]:
    """The order on grids uniform in log-SNR with sigma(t1) > 0, against the claimed one."""
    if case.kind == "stochastic":
        measured = {
            "moments of a Gaussian": weak_convergence(case.solver, case.sde, steps_for(case.claimed, WEAK_STEPS))
        }
    else:
        steps = steps_for(case.claimed)
        measured = {
            "flow of a Gaussian": flow_problem(case.sde).convergence(case.solver, steps),
            "flow of a mixture": flow_problem(case.sde, two_components()).convergence(case.solver, steps),
        }
    return [_order_finding(case, f"order: {what}{case.title}", found) for what, found in measured.items()]


def _order_finding(case: SolverCase, name: str, found: Convergence) -> Finding:
    errors = ", ".join(f"{error:.1e}" for error in found.errors)
    claimed = "no order is claimed" if case.claimed is None else f"claimed {case.claimed}"
    # an order below the claimed one may leave the errors above the window: then it is read off the last of them
    measured = _last(found).order if math.isnan(found.order) else found.order
    words = f"{claimed}, measured {measured:.2f}: errors {errors} in {found.steps} steps"
    if case.claimed is None:
        return Finding(name, Level.NOTE, measured, math.nan, words)
    missing = case.claimed - measured
    return bounded(name, missing, 0.2, fine=words, broken=words)


def _last(found: Convergence) -> Convergence:
    """The three of the most steps, wherever they lie."""
    return Convergence(found.steps[-3:], found.errors[-3:], window=(0.0, math.inf))


def moments(case: SolverCase) -> list[Finding]:
    """Mean and covariance of a mixture at t_min, from the exact marginal at t_max.

    Two numbers of steps tell the bias of the finer one, to leading order: their difference over 2^order - 1. Twice
    that is allowed, for the orders that follow.
    """
    data, process, grids_of = two_components(), case.mixture_process(), [case.grid(steps) for steps in STEPS]
    x_T = case.states(data, SAMPLES, float(grids_of[0][0]))
    noises = [case.noise(steps, SAMPLES) for steps in STEPS]
    coarse, finer = (
        np.asarray(walk(case.solver, process, x_T, grid, noise)) for grid, noise in zip(grids_of, noises, strict=True)
    )
    exact = data.diffused(case.sde, float(grids_of[1][-1]))
    found = deviation(finer, np.asarray(exact.mean()), np.asarray(exact.covariance()))
    difference = deviation(coarse, finer.mean(0), np.cov(finer.T))
    seen, error = difference / (2.0 ** (case.claimed or 1) - 1.0), 4.0 * _standard_error(exact)
    words = f"off by {found:.2%} of the standard deviations in {STEPS[1]} steps of {SAMPLES} samples"
    broken = f"{words}, where 4 standard errors are {error:.2%} and {STEPS} steps differ by {difference:.2%}"
    allowed = error + min(2.0 * seen, LARGEST_BIAS) + case.bias
    return [bounded(f"moments: mixture{case.title}", found, allowed, fine=words, broken=broken)]


def _standard_error(exact: GaussianMixture) -> float:
    """Of a mean or a covariance of `SAMPLES`, in units of the standard deviations, whichever is larger."""
    z = np.asarray(exact.sample(jax.random.key(3), 20_000))
    z = (z - z.mean(0)) / z.std(0)
    return float(np.sqrt(np.max(np.var(z[:, :, None] * z[:, None, :], axis=0)) / SAMPLES))


def evaluations(case: SolverCase) -> list[Finding]:
    """What `evaluations` declares, or diffrax's tableau, against the calls that are made."""
    score, calls = observed(case)
    process, x = case.process(score), case.states(two_components(), 2, case.sde.t_max)
    wrong = []
    for n in (1, 2, 5):
        calls.clear()
        walk(case.solver, process, x, case.grid(n), case.noise(n, 2))
        jax.effects_barrier()
        declared = _declared(case, n, to_data=False)
        if declared is None:
            return [Finding(f"evaluations{case.title}", Level.NOTE, math.nan, math.nan, "are not declared")]
        if declared != len(calls):
            wrong.append(f"in {n} steps {declared} are declared and {len(calls)} made")
    name = f"evaluations{case.title}"
    return [failure(name, "; ".join(wrong)) if wrong else passed(name, f"{declared} in 5 steps, as declared")]


def _declared(case: SolverCase, steps: int, to_data: bool) -> int | None:
    if isinstance(case.solver, AbstractReverseSolver):
        return case.solver.evaluations(steps, to_data)
    known = cost(case.solver)
    return None if known is None else known.per_step * steps + known.once


def same_twice(case: SolverCase) -> list[Finding]:
    """A run is the same after another one: nothing of a run is left in the solver."""
    process, grid = case.mixture_process(), case.grid(4)
    x, noise = case.states(two_components(), 2, float(grid[0])), case.noise(4, 2)
    first = np.asarray(walk(case.solver, process, x, grid, noise))
    walk(case.solver, process, 2.0 * x + 1.0, grid, noise)
    again = np.asarray(walk(case.solver, process, x, grid, noise))
    broken = "a run differs after another one: history leaks between them"
    error = float(np.max(np.abs(first - again)))
    return [bounded(f"memory{case.title}", error, 0.0, fine="a run is the same after another one", broken=broken)]


def last_step(case: SolverCase) -> list[Finding]:
    """The last step to t = 0, where sigma = 0, is finite, and costs what is declared."""
    name = f"last step{case.title}"
    if float(case.sde.sigma(jnp.zeros(()))) > 0:
        return []
    if not case.own and not isinstance(case.solver, AT_THE_START_ONLY):
        return [Finding(name, Level.NOTE, math.nan, math.nan, "needs sigma(t1) > 0: a grid must end at t > 0")]
    score, calls = observed(case)
    data, process, n = two_components(), case.process(score), 3
    grid = np.append(grids.log_snr(case.sde, n - 1, t_min=0.05 * case.sde.t_max), 0.0)
    x = np.asarray(walk(case.solver, process, case.states(data, 2, float(grid[0])), grid, case.noise(n, 2)))
    jax.effects_barrier()
    if not np.all(np.isfinite(x)):
        return [failure(name, f"to t = 0 gives {x.ravel()[0]}: something is divided by sigma(t1) = 0")]
    declared = _declared(case, n, to_data=True)
    if declared is not None and declared != len(calls):
        return [failure(name, f"of {n} steps to t = 0 {declared} evaluations are declared and {len(calls)} made")]
    return [passed(name, "to t = 0 is finite")]


def observed(case: SolverCase) -> tuple[ObservedScore, list[int]]:
    """The score of the mixture, and a list that grows by one with each evaluation."""
    calls: list[int] = []
    return ObservedScore(two_components().score(case.sde), lambda: None, lambda: calls.append(1)), calls


def _held(case: SolverCase, name: str, figure: float, tolerance: float, fine: str, broken: str) -> Finding:
    """A finding; where no order is claimed it is a note, a step may do more than follow the process then."""
    if case.claimed is None:
        return Finding(name, Level.NOTE, figure, tolerance, fine)
    return bounded(name, figure, tolerance, fine=fine, broken=broken)
