"""What sdelab costs over the same thing written by hand.

    python -m experiments.overhead [--rounds 21] [--only imports points images solvers] [--output overhead.json]

Comparisons, each of medians over rounds in which the two take turns in one session:

- `from sdelab import VP` against `import jax, equinox`, in fresh interpreters: at most 1.5;
- `sdelab.sample` with Euler–Maruyama against a hand-written `lax.scan`, the exact score of a mixture, 4096 points: 1.10;
- the same with a compact U-Net: 1.03;
- every fixed-grid solver against the same method as a `lax.scan` over numbers computed beforehand, as in `points`: 1.10.
  (`points` measures Euler–Maruyama against a plainer loop, which computes its numbers on the way.)

On a CPU, XLA's own kernels are used for sums (`XLA_FLAGS`, unless it names the flag). Left to itself it hands them to YNNPACK: both
sides of `points` and `solvers` then take far longer; it is that library's time, which differs from process to process, that counts.

A second call of `sdelab.sample` that compiles anything is an error. The exit status is 1 if a ratio is over its
limit. The ratios are what counts: seconds depend on the machine and on what else it does.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import jax

from experiments.overhead.imports import import_time
from experiments.overhead.methods import METHODS
from experiments.overhead.sampling import compare_images, compare_points
from experiments.overhead.solvers import compare_solvers
from experiments.overhead.timing import Comparison
from sdelab.cli.xla_flags import choose_fusions


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    questions: dict[str, Callable[[], list[Comparison]]] = {
        "imports": lambda: [import_time(options.rounds)],
        "points": lambda: [compare_points(options.rounds, options.steps)],
        "images": lambda: [compare_images(options.rounds, options.image_steps)],
        "solvers": lambda: compare_solvers(options.rounds, options.steps, options.solvers),
    }
    results = [result for name in options.only or questions for result in questions[name]()]
    print(table(results))
    if options.output:
        options.output.write_text(json.dumps(report(results), indent=2) + "\n")
    return 0 if all(result.holds for result in results) else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="runs of each of the two sides")
    parser.add_argument("--steps", type=int, default=500, help="solver steps for the points")
    parser.add_argument(
        "--image-steps", type=int, default=100, help="for the images: few, so that a call's fixed cost shows"
    )
    parser.add_argument(
        "--only", nargs="+", choices=["imports", "points", "images", "solvers"], help="some of the comparisons"
    )
    parser.add_argument("--solvers", nargs="+", choices=list(METHODS), help="some of the solvers")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    return parser.parse_args(arguments)


def table(results: list[Comparison]) -> str:
    head = f"{'':<48}{'sdelab / ms':>13}{'by hand / ms':>14}{'ratio':>8}{'limit':>8}"
    rows = [
        f"{r.name:<48}{1e3 * r.ours:>13.1f}{1e3 * r.reference:>14.1f}{r.ratio:>8.3f}{r.limit:>8.2f}"
        f"{'' if r.holds else '  over the limit'}"
        for r in results
    ]
    return "\n".join([head, *rows])


def report(results: list[Comparison]) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "comparisons": [{**result._asdict(), "holds": result.holds} for result in results],
    }


if __name__ == "__main__":
    choose_fusions("")
    sys.exit(main())
