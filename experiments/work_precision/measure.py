"""Errors and seconds of one solver after another."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import sdelab
from experiments.work_precision.cases import RULES, evaluations_of, steps_within
from experiments.work_precision.problems import Problem
from sdelab.evaluate import energy_distance, sliced_wasserstein
from sdelab.solvers import AncestralDDPM, AncestralSMLD
from sdelab.solvers.diffrax_terms import is_implicit


class Record(NamedTuple):
    """One solver in so many steps of one grid rule. `errors` by the metric's name; `seconds` a call, without compilation."""

    problem: str
    process: str
    kind: str
    solver: str
    rule: str
    steps: int
    evaluations: int
    seconds: float
    errors: dict[str, float]


class Case(NamedTuple):
    """One compiled program: a solver on a problem in a number of steps."""

    problem: Problem
    kind: str
    name: str
    solver: diffrax.AbstractSolver
    steps: int


METRIC = {"deterministic": "rmse", "stochastic": "sliced_wasserstein"}
"""By which the best solver of a kind is chosen."""


def cases(
    problem: Problem, solvers: Mapping[str, Mapping[str, diffrax.AbstractSolver]], budgets: Sequence[int]
) -> Iterator[Case]:
    """Every solver at every affordable length.

    Left out are implicit solvers, whose evaluations are not known beforehand, and those that step by a table and not by
    the grid.
    """
    for kind, named in solvers.items():
        for name, solver in named.items():
            if not is_implicit(solver) and not isinstance(solver, (AncestralDDPM, AncestralSMLD)):
                for steps in sorted({steps_within(solver, budget) for budget in budgets} - {0}):
                    yield Case(problem, kind, name, solver, steps)


def measure(case: Case, rules: Sequence[str], rounds: int) -> Iterator[Record]:
    """The records of one case, one a grid rule. Only the first call compiles, and it is not timed."""
    problem, stochastic = case.problem, case.kind == "stochastic"
    process = problem.reverse_sde() if stochastic else problem.flow()
    x_T = jnp.asarray(problem.x_T if stochastic else problem.x_T[: len(problem.flow_end)])
    evaluations = evaluations_of(case.solver, case.steps)
    assert evaluations is not None
    for rule in rules:
        grid = RULES[rule](problem.sde, case.steps)

        def run(grid: np.ndarray = grid) -> jax.Array:
            return sdelab.sample(jax.random.key(2), process, x_T, solver=case.solver, grid=grid)

        x = np.asarray(run())
        seconds = statistics.median(seconds_of(run) for _ in range(rounds))
        errors = distances(x, problem.samples) if stochastic else {"rmse": rmse(x, problem.flow_end)}
        where = problem.name, problem.process_name, case.kind, case.name, rule
        yield Record(*where, case.steps, evaluations, seconds, errors)


def seconds_of(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def rmse(x: np.ndarray, exact: np.ndarray) -> float:
    """Root mean square over samples and coordinates; `inf` where a state is not finite."""
    gap = float(np.sqrt(np.mean((x.astype(np.float64) - exact) ** 2)))
    return gap if np.isfinite(gap) else float("inf")


def distances(x: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Between two sets of samples; `inf` where a state is not finite."""
    if not np.all(np.isfinite(x)):
        return {"sliced_wasserstein": float("inf"), "energy": float("inf")}
    sliced = sliced_wasserstein(jax.random.key(3), x, exact, 128)
    return {"sliced_wasserstein": sliced, "energy": energy_distance(x, exact)}
