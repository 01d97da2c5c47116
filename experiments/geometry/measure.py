"""Each solver with and without a warm start, and how many evaluations it saves at equal error."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import diffrax

from experiments.geometry.problems import Problem
from experiments.work_precision.cases import steps_within
from sdelab.geometry import GaussianWarmStart, Saving, measure_saving


class Run(NamedTuple):
    """A solver on a problem, cold and from the warm start at `t`, where sigma/alpha is `level` times the data's spread."""

    problem: str
    solver: str
    level: float
    t: float
    saving: Saving


class Row(NamedTuple):
    """At the error of a cold run: the fewest evaluations from any warm start, and from which; NaN where none is as good."""

    problem: str
    solver: str
    evaluations: float
    error: float
    t: float
    warm_evaluations: float

    @property
    def saved(self) -> float:
        """Evaluations saved, as a share."""
        return 1.0 - self.warm_evaluations / self.evaluations


def runs_of(
    problem: Problem,
    name: str,
    solver: diffrax.AbstractSolver,
    *,
    levels: Sequence[float],
    evaluations: Sequence[int],
) -> Iterator[Run]:
    """One run a level, on grids uniform in log-SNR with as many steps as fit in each number of evaluations."""
    steps = sorted({steps_within(solver, budget) for budget in evaluations} - {0})
    for level in levels:
        t = problem.time_of(level)
        warm_start = GaussianWarmStart(problem.gaussian, t)
        saving = measure_saving(problem.flow, problem.x_T, problem.truth, warm_start, solver=solver, steps=steps)
        yield Run(problem.name, name, level, t, saving)


def rows_of(runs: Sequence[Run]) -> Iterator[Row]:
    """The best level at the error of every cold run of one solver on one problem."""
    cold = runs[0].saving.cold
    for evaluations, error in zip(cold.evaluations, cold.errors, strict=True):
        needed = [(run.saving.warm.evaluations_at(error), run.t) for run in runs] if error > 0 else []
        warm, t = min((pair for pair in needed if not math.isnan(pair[0])), default=(math.nan, math.nan))
        yield Row(runs[0].problem, runs[0].solver, evaluations, error, t, warm)
