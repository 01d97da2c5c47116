"""Which solver is the most accurate for its cost?

    python -m experiments.work_precision [--quick] [--sdes VP VE ...] [--workdir RUN] [--output work_precision]
    python -m experiments.work_precision --combine PART PART ... [--output work_precision]

Every solver of `sdelab.solvers.table()` on every process, on a mixture in 2 dimensions, one in 64, and with `--workdir`
the network of a run on its own process. The error of a solver of the probability flow is the root mean square distance
to the exact flow's end from the same starting points; that of a solver of the reverse SDE the sliced Wasserstein and the
energy distance to exact samples of p_{t_min}, of which as many are drawn. Seconds are those of a call of `sdelab.sample`
that compiles nothing. Leaves records.json, best.md and a picture for each problem; prints the table of the best.

A full run compiles some thousand programs: an hour on two cores. `--quick` takes a few minutes. Parts of it (`--part 3/12`: of
twelve, the third; or by `--sdes`, `--problems`, `--workdir`, `--kinds`) may run beside one another on cores of their own;
`--combine` makes one of their folders. A run that is interrupted leaves what it has measured.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

import sdelab
from experiments.work_precision.cases import PROCESSES, RULES, SOLVERS, USUAL
from experiments.work_precision.measure import Case, Record, cases, measure
from experiments.work_precision.problems import PROBLEMS, Problem, mixture_problem, trained_problem
from experiments.work_precision.report import best_at, floors_of, pictures, table

QUICK_SOLVERS = ("Heun", "DPMSolverPlusPlus2M", "UniPC", "diffrax.Euler", "Ancestral", "EulerMaruyama")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.combine:
        combine(options.output, options.combine)
        return 0
    problems = list(problems_of(options))
    first, parts = options.part
    todo = [case for problem in problems for case in chosen_cases(problem, options)][first - 1 :: parts]
    records: list[Record] = []
    done = 0
    with tqdm(todo, unit="solver") as bar, contextlib.suppress(KeyboardInterrupt):
        for case in bar:
            bar.set_description(f"{case.problem.name}, {case.problem.process_name}, {case.name}")
            records.extend(measure(case, options.rules, options.rounds))
            done += 1
    if done < len(todo):
        print(f"Interrupted: {done} of {len(todo)} solvers and lengths are measured, and written.")
    machine = {"backend": jax.default_backend(), "jax": jax.__version__, "sdelab": sdelab.__version__}
    write(options.output, [machine], floors_of(problems), records, options.evaluations)
    return 0 if done == len(todo) else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m experiments.work_precision", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sdes", nargs="+", choices=list(PROCESSES), default=list(USUAL))
    parser.add_argument(
        "--problems", nargs="*", choices=["2", "64"], default=["2", "64"], help="dimensions of mixtures"
    )
    parser.add_argument("--workdir", type=Path, help="a run, whose network is a problem of its own")
    parser.add_argument("--evaluations", nargs="+", type=int, default=[5, 10, 20, 50])
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES), help="grid rules")
    parser.add_argument("--kinds", nargs="+", choices=list(SOLVERS), default=list(SOLVERS), help="of solvers")
    parser.add_argument("--solvers", nargs="+", help="only those whose name begins with one of these")
    parser.add_argument("--samples", type=int, default=2000, help="for the distances between sets")
    parser.add_argument("--points", type=int, default=512, help="starting points of the flow, the first of the samples")
    parser.add_argument("--rounds", type=int, default=3, help="timed calls, of which the median counts")
    parser.add_argument("--part", type=part, default=(1, 1), metavar="K/N", help="of N, which this run measures")
    parser.add_argument("--quick", action="store_true", help="a few solvers on VP and EDM in 2 dimensions")
    parser.add_argument("--combine", nargs="+", type=Path, metavar="PART", help="folders of runs: nothing is measured")
    parser.add_argument("--output", type=Path, default=Path("work_precision"))
    options = parser.parse_args(arguments)
    if options.quick:
        options.sdes, options.problems = ["VP", "EDM"], ["2"]
        options.solvers = options.solvers or list(QUICK_SOLVERS)
    return options


def part(text: str) -> tuple[int, int]:
    """`3/12` as (3, 12)."""
    first, _, parts = text.partition("/")
    if not (first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted; it must be K/N with 1 <= K <= N, such as 3/12")
    return int(first), int(parts)


def problems_of(options: argparse.Namespace) -> Iterator[Problem]:
    """The problems asked for. Without a run the trained network is left out, with a word."""
    sizes = {"points": options.points, "samples": options.samples}
    for dimension in options.problems:
        for name in options.sdes:
            yield mixture_problem(int(dimension), name, **sizes)
    if options.workdir is None:
        print("No --workdir: the trained network is left out. `make quickstart` trains one in a few minutes.")
    else:
        yield trained_problem(options.workdir, **sizes)


def chosen_cases(problem: Problem, options: argparse.Namespace) -> Iterator[Case]:
    for case in cases(problem, {kind: SOLVERS[kind] for kind in options.kinds}, options.evaluations):
        if not options.solvers or case.name.startswith(tuple(options.solvers)):
            yield case


def combine(folder: Path, parts: Sequence[Path]) -> None:
    """What runs of parts have left, as one run leaves it, at the numbers of evaluations of all of them."""
    found = [json.loads((part / "records.json").read_text()) for part in parts]
    records = sorted((Record(**record) for results in found for record in results["records"]), key=place)
    floors = {where: floor for results in found for where, floor in results["floors"].items()}
    budgets = sorted({budget for results in found for budget in results["evaluations"]})
    write(folder, [machine for results in found for machine in results["machines"]], floors, records, budgets)


def place(record: Record) -> tuple[Any, ...]:
    """Where one run would have written the record: by problem and process, then as the solvers' table has it."""
    solvers = SOLVERS.get(record.kind, {})
    names = (PROBLEMS, record.problem), (PROCESSES, record.process), (SOLVERS, record.kind), (solvers, record.solver)
    numbers = [list(known).index(name) if name in known else len(known) for known, name in names]
    return *numbers, record.solver, record.evaluations, list(RULES).index(record.rule) if record.rule in RULES else 0


def write(
    folder: Path, machines: list[dict[str, str]], floors: dict[str, float], records: list[Record], budgets: list[int]
) -> None:
    """records.json, best.md and the pictures; the table on the terminal too."""
    folder.mkdir(parents=True, exist_ok=True)
    best = best_at(records, budgets)
    text = table(best, budgets, floors)
    different = [machine for i, machine in enumerate(machines) if machine not in machines[:i]]
    results = {
        "machines": different,
        "evaluations": budgets,
        "floors": floors,
        "best": best,
        "records": [r._asdict() for r in records],
    }
    (folder / "records.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "best.md").write_text(text + "\n")
    for name in dict.fromkeys(record.problem for record in records):
        figure = pictures(name, [r for r in records if r.problem == name], floors)
        sdelab.plot.save(figure, folder / f"{name.replace(' ', '_')}.png")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
