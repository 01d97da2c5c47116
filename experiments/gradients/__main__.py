"""What a gradient through sampling costs in memory and time, adjoint by adjoint.

    python -m experiments.gradients [--steps 64] [--batch 512] [--width 64] [--rounds 5] [--output gradients.json]

A residual MLP, the probability flow of `VP()`, and the gradient of a scalar of the samples with respect to all parameters
and all starts. *Memory* is what the compiled gradient sets aside beside its arguments and results; *time* is that of the
gradient over that of the same samples without one, medians of runs that take turns; *error* is the relative error of the
derivative in one direction against the default adjoint's on the same solve. In forward mode only that direction is taken.
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.gradients.cases import Case, along, cases, functions, network
from experiments.overhead.timing import compare, timed


class Row(NamedTuple):
    """One adjoint of one solve: bytes, seconds, and the derivative along one direction."""

    solve: str
    adjoint: str
    forward_bytes: int
    bytes: int
    seconds: float
    ratio: float
    derivative: float
    error: float


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    apply, params, x_T = network(options.width, options.batch)
    rows: list[Row] = []
    for case in cases(options.steps, apply, params, x_T):
        reference = next((row.derivative for row in rows if row.solve == case.solve), None)
        rows.append(measure(case, apply, (params, x_T), reference, options.rounds))
    print(table(rows))
    if options.output:
        options.output.write_text(json.dumps(report(rows, options), indent=2) + "\n")
    return 0


def measure(case: Case, apply, inputs, reference: float | None, rounds: int) -> Row:
    forward, derivative = (jax.jit(function).lower(*inputs).compile() for function in functions(case, apply))
    value = along(derivative(*inputs), inputs)
    times = compare(
        f"{case.solve}: {case.name}",
        timed(lambda: derivative(*inputs)),
        timed(lambda: forward(*inputs)),
        rounds=rounds,
        limit=float("inf"),
    )
    error = 0.0 if reference is None else abs(value - reference) / abs(reference)
    memory = [temporary_bytes(program) for program in (forward, derivative)]
    return Row(case.solve, case.name, *memory, times.ours, times.ratio, value, error)


def temporary_bytes(program: jax.stages.Compiled) -> int:
    """Memory beside arguments and results. Errors: a backend that does not tell."""
    analysis = program.memory_analysis()
    if analysis is None:
        raise RuntimeError(f"the backend {jax.default_backend()!r} does not analyse the memory of a program.")
    return int(analysis.temp_size_in_bytes)


def table(rows: list[Row]) -> str:
    head = f"| {'solve':<30} | {'adjoint':<16} | {'memory / MiB':>12} | {'time / forward':>14} | {'error':>7} |"
    rule = f"|{'-' * 32}|{'-' * 18}|{'-' * 13}:|{'-' * 15}:|{'-' * 8}:|"
    body = [
        f"| {row.solve:<30} | {row.adjoint:<16} | {row.bytes / 2**20:>12.1f} | {row.ratio:>14.1f} | {row.error:>7.0e} |"
        for row in rows
    ]
    return "\n".join([head, rule, *body])


def report(rows: list[Row], options: argparse.Namespace) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "settings": {name: value for name, value in vars(options).items() if name != "output"},
        "rows": [row._asdict() for row in rows],
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments.gradients", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=64, help="steps of the fixed grid")
    parser.add_argument("--batch", type=int, default=512, help="samples")
    parser.add_argument("--width", type=int, default=64, help="of the network")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each of the two sides")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
