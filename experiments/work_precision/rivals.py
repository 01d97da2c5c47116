"""The best of sdelab against the best recorded run of diffusers, k-diffusion, DPM-Solver, azula (and UniPC, EDM).

    python -m experiments.work_precision.rivals [--fixtures tests/fixtures/D_samplers] [--output work_precision]

From the recorded starting points to the recorded noise level, in float64. An error is the root mean square distance to
the exact flow's end, in units of the data, on the states divided by alpha. Runs between the same levels, from the same
points, are one problem; at each number of evaluations that a run of it took, and at 5, 10, 20 and 50, the best run with
at most so many evaluations stands against our best solver with at most so many, on the best of a few grid rules. The
exit status is 1 if a run is more accurate.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import sdelab
from experiments.work_precision.cases import CONTENDERS, evaluations_of, steps_within
from experiments.work_precision.recorded import Points, Run, recorded_runs
from sdelab.solvers.base import AbstractReverseSolver, Interval
from sdelab.testing.order import walk

BUDGETS = (5, 10, 20, 50)
MOST = 150  # evaluations of ours, against adaptive runs of up to 190
TRUTH_STEPS, TRUTH_END = 192, 1e-6  # of order 8; below the end the flow is at rest


class Problem(NamedTuple):
    """All runs from one set of starting points between two noise levels, and where the exact flow ends."""

    data: str
    high: float
    low: float
    start: Points
    truth: Points
    runs: list[Run]


Solvers = Mapping[str, AbstractReverseSolver]
Result = tuple[int, float, str]
"""Evaluations, error, and whose it is."""


class Duel(NamedTuple):
    """The smallest errors with at most `evaluations`, and who made them; NaN where no run is so cheap."""

    data: str
    high: float
    low: float
    evaluations: int
    theirs: float
    their_run: str
    ours: float
    our_solver: str

    @property
    def holds(self) -> bool:
        return not self.ours > self.theirs


class Rule(NamedTuple):
    """A rule of spacing between two noise levels: equal steps of `scale`, whose inverse is `level`.

    `last`: the level before a last step to 0, for grids that end there.
    """

    name: str
    scale: Callable[[np.ndarray], np.ndarray]
    level: Callable[[np.ndarray], np.ndarray]
    last: float | None = None

    def grid(self, high: float, low: float, n: int) -> np.ndarray:
        """`n` steps from `high` to `low`."""
        if low > 0.0:
            return self._between(high, low, n)
        assert self.last is not None
        return np.append(self._between(high, self.last, n - 1) if n > 1 else high, 0.0)

    def _between(self, high: float, low: float, n: int) -> np.ndarray:
        start, end = self.scale(np.array([high, low]))
        levels = self.level(np.linspace(start, end, n + 1))
        levels[0], levels[-1] = high, low
        return levels


def _time(level: np.ndarray) -> np.ndarray:
    """The time at which `VP()` has a noise level sigma/alpha."""
    total = np.log1p(level**2)
    return 2.0 * total / (0.1 + np.sqrt(0.1**2 + 2.0 * 19.9 * total))


def _level(t: np.ndarray) -> np.ndarray:
    return np.sqrt(np.expm1(0.1 * t + 0.5 * 19.9 * t**2))


SPACINGS = (
    Rule("log_snr", np.log, np.exp),
    Rule("edm rho=7", lambda level: level ** (1 / 7), lambda root: root**7),
    Rule("edm rho=4", lambda level: level ** (1 / 4), lambda root: root**4),
    Rule("VP's uniform", _time, _level),
    Rule("VP's quadratic", lambda level: np.sqrt(_time(level)), lambda root: _level(root**2)),
)
LAST_LEVELS = (0.02, 0.06, 0.15)


def rules(to_data: bool) -> list[Rule]:
    """The grid rules tried."""
    if not to_data:
        return list(SPACINGS)
    return [rule._replace(name=f"{rule.name}, {last:g}", last=last) for rule in SPACINGS for last in LAST_LEVELS]


def problems_of(folder: Path, data: str) -> tuple[sdelab.ProbabilityFlow, list[Problem]]:
    """The flow of the mixture `data` in noise levels, and the problems that the recorded runs on it pose."""
    mixture, runs = recorded_runs(folder, data)
    sde = sdelab.EDM(t_min=TRUTH_END, t_max=2.0 * max(run.high for run in runs))
    flow = sdelab.ProbabilityFlow(sde, mixture.distribution().score(sde))
    same: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        same[run.start.shape, round(run.high, 4), round(run.low, 6), float(run.start.sum())].append(run)
    problems = []
    for group in tqdm(same.values(), desc=f"exact flows of {data}", unit="problem"):
        high, low, start = group[0].high, group[0].low, group[0].start
        levels = np.geomspace(high, max(low, TRUTH_END), TRUTH_STEPS + 1)
        truth = np.asarray(walk(diffrax.Dopri8(), flow, jnp.asarray(start), levels))
        problems.append(Problem(data, high, low, start, truth, group))
    return flow, problems


def _of_one_size(starts: list[Points]) -> jax.Array:
    """Batches of different sizes as one array: the smaller ones begin again from their first point."""
    size = max(map(len, starts))
    return jnp.stack([jnp.asarray(np.resize(start, (size, start.shape[1]))) for start in starts])


def errors_of_ours(flow: sdelab.ProbabilityFlow, problems: list[Problem], solvers: Solvers) -> list[list[Result]]:
    """For each problem what every solver achieves with every rule and at every affordable length."""
    found: list[list[Result]] = [[] for _ in problems]
    cases = [(i, rule) for i, problem in enumerate(problems) for rule in rules(problem.low == 0.0)]
    starts = _of_one_size([problems[i].start for i, _ in cases])
    for name, solver in tqdm(solvers.items(), desc="our solvers", unit="solver"):
        wanted = [{steps_within(solver, n, p.low == 0.0) for n in budgets_of(p)} - {0} for p in problems]
        for steps in sorted(set().union(*wanted)):
            levels = np.stack([rule.grid(problems[i].high, problems[i].low, steps) for i, rule in cases])
            ends = march(solver, flow, starts, jnp.asarray(levels))
            for (i, rule), end in zip(cases, np.asarray(ends), strict=True):
                if steps in wanted[i]:
                    spent = evaluations_of(solver, steps, problems[i].low == 0.0)
                    assert spent is not None
                    error = rms(end[: len(problems[i].start)] - problems[i].truth)
                    found[i].append((spent, error, f"{name} on {rule.name}"))
    return found


def march(solver: AbstractReverseSolver, flow: sdelab.ProbabilityFlow, x: jax.Array, levels: jax.Array) -> jax.Array:
    """Each batch of points along its own grid, all grids of one length. One compiled step serves grids of every length."""
    count = levels.shape[1] - 1
    memory = jax.vmap(lambda x: solver.initial_memory(flow, x))(x)
    for i in range(count):
        last, index = jnp.asarray(i == count - 1), jnp.asarray(i, jnp.int32)
        ends = levels[:, i], levels[:, i + 1]
        x, memory = _step(solver, flow, x, *ends, index, last, jnp.asarray(count, jnp.int32), memory)
    return x


@eqx.filter_jit
def _step(solver: AbstractReverseSolver, flow: sdelab.ProbabilityFlow, x, t0, t1, index, is_last, count, memory):
    def one(x, t0, t1, memory):
        inner = solver.inner_times(flow, t0[None], t1[None])[0]
        interval = Interval(t0, t1, index, is_last, jnp.zeros((0, *x.shape), x.dtype), inner, count)
        step = solver.advance(flow, x, interval, memory)
        return step.x, step.memory

    return jax.vmap(one)(x, t0, t1, memory)


def budgets_of(problem: Problem) -> list[int]:
    """The numbers of evaluations at which a problem is judged."""
    return sorted({*BUDGETS, *(min(run.evaluations, MOST) for run in problem.runs)})


def duels(folder: Path, data: str, solvers: Solvers) -> list[Duel]:
    """Every comparison on the mixture `data`. Float64 must be on."""
    flow, problems = problems_of(folder, data)
    ours = errors_of_ours(flow, problems, solvers)
    found = []
    for index, problem in enumerate(problems):
        theirs = [(r.evaluations, rms(r.end - problem.truth), f"{r.library} {r.name}") for r in problem.runs]
        for budget in sorted({*BUDGETS, *(run.evaluations for run in problem.runs)}):
            their_error, their_run = best_within(theirs, budget)
            our_error, our_solver = best_within(ours[index], budget)
            ends = problem.high, problem.low
            found.append(Duel(data, *ends, budget, their_error, their_run, our_error, our_solver))
    return found


def best_within(results: list[Result], budget: int) -> tuple[float, str]:
    """The smallest finite error with at most so many evaluations, and whose it is."""
    affordable = [(error, name) for evaluations, error, name in results if evaluations <= budget and error < np.inf]
    return min(affordable, default=(float("nan"), ""))


def rms(gap: np.ndarray) -> float:
    return float(np.sqrt(np.mean(gap**2)))


def table(found: list[Duel]) -> str:
    """Markdown: one row a comparison that has a recorded run."""
    head = "| data | noise levels | evaluations | theirs | error | ours | error | ours/theirs |\n" + "|---" * 8 + "|"
    rows = [
        f"| {d.data} | {d.high:.4g} to {d.low:.3g} | {d.evaluations} | {d.their_run} | {d.theirs:.2e} | {d.our_solver} "
        f"| {d.ours:.2e} | {d.ours / d.theirs:.2f}{'' if d.holds else ' **worse**'} |"
        for d in found
        if d.their_run
    ]
    return "\n".join([head, *rows])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m experiments.work_precision.rivals", description=__doc__)
    parser.add_argument("--fixtures", type=Path, default=Path("tests/fixtures/D_samplers"))
    parser.add_argument("--output", type=Path, default=Path("work_precision"), help="folder for rivals.json and .md")
    options = parser.parse_args(arguments)
    with jax.enable_x64(True):
        found = [duel for data in ("gmm2", "gmm8") for duel in duels(options.fixtures, data, CONTENDERS)]
    text = table(found)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "rivals.md").write_text(text + "\n")
    record = [{**duel._asdict(), "holds": duel.holds} for duel in found]
    (options.output / "rivals.json").write_text(json.dumps(record, indent=2) + "\n")
    print(text)
    worse = sum(not duel.holds for duel in found)
    print(f"\n{len(found)} comparisons, in {worse} of which a recorded run is more accurate than sdelab.")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
