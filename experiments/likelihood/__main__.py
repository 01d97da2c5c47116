"""How far do the solver's tolerances move the bits/dim of single images?

    python -m experiments.likelihood --workdir RUN [--count 16] [--tolerances 1e-5 1e-6 1e-7] [--t-min 1e-5]

Held-out images of a run, dequantised once, along the probability flow from `--t-min` with the exact trace, in a float64
state (the network stays in the precision that it was trained in), each image with steps of its own. For each tolerance: the mean, the
evaluations, and the largest difference of any image from its value at the tightest tolerance. The limit is 1e-3
bits/dim: the exit code is 1 where the loosest tolerance is farther off.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sdelab.data import GreyLevels
from sdelab.evaluate import held_out_rows
from sdelab.likelihood import ExactTrace, log_prob_with_info
from sdelab.reverse import ProbabilityFlow
from sdelab.train import load_run
from sdelab.train.build import build_dataset

LIMIT = 1e-3  # bits/dim


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with jax.enable_x64(True):
        flow, x, offset = problem(options.workdir, options.count)
        grid = [flow.sde.t_max, options.t_min]
        bits, evaluations = zip(*(measure(flow, x, grid, tol) for tol in sorted(options.tolerances)[::-1]), strict=True)
    print("| tolerance | bits/dim | evaluations | largest difference of an image |\n|---|---|---|---|")
    differences = [float(np.max(np.abs(each - bits[-1]))) for each in bits]
    for tol, each, count, difference in zip(
        sorted(options.tolerances)[::-1], bits, evaluations, differences, strict=True
    ):
        print(f"| {tol:.0e} | {each.mean() + offset:.5f} | {count:.0f} | {difference:.1e} |")
    return 0 if differences[0] <= LIMIT else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments.likelihood", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="a run on images, such as `make quickstart` leaves")
    parser.add_argument("--count", type=int, default=16, help="held-out images")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-5, 1e-6, 1e-7], help="relative and absolute")
    parser.add_argument("--t-min", type=float, default=1e-5, help="end of the flow")
    return parser.parse_args(arguments)


def problem(workdir: Path, count: int) -> tuple[ProbabilityFlow, jax.Array, float]:
    """The flow of the run, held-out images in float64, dequantised by fixed random numbers, and the offset in bits."""
    run = load_run(workdir)
    dataset = build_dataset(run.config)
    scaling = dataset.scaling
    if not isinstance(scaling, GreyLevels):
        raise SystemExit(
            f"{workdir} was trained on {dataset.name}, which has no grey levels; accepted: a run on images."
        )
    rows = held_out_rows(dataset, count)
    grey = dataset.held_out[rows]
    u = np.random.default_rng(0).uniform(size=grey.shape)
    x = jnp.asarray(scaling.low + (scaling.high - scaling.low) * (grey + u) / scaling.levels)
    labels = dataset.held_out_labels
    condition = jnp.asarray(labels[rows]) if run.conditional and labels is not None else None
    offset = float(np.log2(scaling.levels / (scaling.high - scaling.low)))
    return ProbabilityFlow(run.sde, run.score, condition=condition), x, offset


def measure(flow: ProbabilityFlow, x: jax.Array, grid: list[float], tolerance: float) -> tuple[np.ndarray, float]:
    """Bits/dim of each image without the offset, and the mean number of evaluations."""
    log_p, info = log_prob_with_info(
        flow, x, divergence=ExactTrace(chunk=8), grid=grid, rtol=tolerance, atol=tolerance, max_steps=100_000
    )
    unit = np.log(2.0) * np.prod(x.shape[1:])
    assert info.evaluations is not None  # of an explicit method they are counted
    return -np.asarray(log_p) / unit, float(jnp.mean(info.evaluations))


if __name__ == "__main__":
    sys.exit(main())
