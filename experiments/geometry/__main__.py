"""How many evaluations does a Gaussian warm start save, at equal error?

    python -m experiments.geometry [--sde VP] [--workdir RUN] [--solvers NAME ...] [--output geometry]

A solver of the probability flow starts at t_max, or later, where the closed-form flow of the Gaussian with the data's mean and
covariance has carried its states. For every run from t_max the table has the fewest evaluations with which a warm start
reaches the same error, and its time. The error is the root mean square distance to the exact flow's end. On a
mixture in 2 dimensions, one in 64 and, with `--workdir`, the network of a run on its own process. Leaves geometry.json and
geometry.png. A few minutes on two cores; Wang and Vastola (2023), https://arxiv.org/abs/2303.02490.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

import sdelab
from experiments.geometry.measure import Row, Run, rows_of, runs_of
from experiments.geometry.problems import Problem, mixture_problem, trained_problem
from experiments.geometry.report import picture, record, table
from sdelab.solvers.catalog import DETERMINISTIC
from sdelab.solvers.diffrax_terms import is_implicit

SOLVERS = ("DDIM()", "Heun()", "DPMSolverPlusPlus2M()", "diffrax.Bosh3()")
PROCESSES = {kind.__name__: kind for kind in (sdelab.VP, sdelab.SubVP, sdelab.VPCosine, sdelab.VE, sdelab.EDM)}
EXPLICIT = [name for name, solver in DETERMINISTIC.items() if not is_implicit(solver)]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    runs: list[Run] = []
    rows: list[Row] = []
    for problem in problems_of(options):
        for name in tqdm(options.solvers, desc=problem.name, unit="solver"):
            steps = {"levels": options.levels, "evaluations": options.evaluations}
            found = list(runs_of(problem, name, DETERMINISTIC[name], **steps))
            runs.extend(found)
            rows.extend(rows_of(found))
    print(table(rows))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "geometry.json").write_text(json.dumps(record(runs, rows), indent=1) + "\n")
    sdelab.plot.save(picture(runs), options.output / "geometry.png")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m experiments.geometry", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sde", choices=list(PROCESSES), default="VP", help="the process of the mixtures")
    parser.add_argument("--dimensions", nargs="*", type=int, default=[2, 64], help="of the mixtures")
    parser.add_argument("--workdir", type=Path, help="a run, whose network is a problem of its own")
    parser.add_argument("--label", type=int, default=3, help="the class that is sampled, if the run has labels")
    parser.add_argument("--rank", type=int, default=24, help="of the covariance of the run's data")
    parser.add_argument("--solvers", nargs="+", metavar="NAME", choices=EXPLICIT, default=list(SOLVERS))
    parser.add_argument("--evaluations", nargs="+", type=int, default=[4, 6, 8, 10, 14, 20, 28, 40, 50])
    parser.add_argument(
        "--levels",
        nargs="+",
        type=float,
        default=[32, 16, 8, 4, 2, 1],
        help="sigma/alpha at the warm start, in units of the data",
    )
    parser.add_argument("--samples", type=int, default=256, help="starting points")
    parser.add_argument("--output", type=Path, default=Path("geometry"))
    return parser.parse_args(arguments)


def problems_of(options: argparse.Namespace) -> Iterator[Problem]:
    for dimension in options.dimensions:
        yield mixture_problem(dimension, PROCESSES[options.sde](), options.samples)
    if options.workdir is not None:
        yield trained_problem(options.workdir, options.samples, options.rank, options.label)


if __name__ == "__main__":
    sys.exit(main())
