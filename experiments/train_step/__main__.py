"""Forward pass and training step of DDPM++, beside the same network in PyTorch.

    python -m experiments.train_step [--channels 32 64] [--rounds 7] [--torch-python PATH] [--output train_step.json]
    python -m experiments.train_step --device gpu --dtype bfloat16 --channels 128 --blocks 4 --multipliers 1 2 2 2 --batch 128

The network: 32 x 32 x 3, multipliers (1, 2, 2), two blocks a level, attention at 16, dropout 0.1, batch 16, float32. The step:
times and noise, denoising loss, gradient, bound on its norm, Adam, average. PyTorch runs in channels-last memory, eagerly and
under `torch.compile`, with the fused Adam, in a process of its own, in turns of two runs with ours. The times are medians over rounds
of the second runs, on the wall and, in brackets, of all cores together. The machine must be idle: OpenMP's threads wait for one
another in a busy loop, and with one other process beside them PyTorch takes many times as long. `OMP_WAIT_POLICY=passive` ends that.

Before anything is measured both networks are given the same weights, by the names of published checkpoints, and must have
as many parameters and the same output to 1e-4. `--torch-python` is an interpreter that has PyTorch, if this one has not;
without PyTorch ours runs alone. Of PyTorch, all that is needed is `torch` and `numpy`.

On a GPU a run is ten calls (`--repeats`), waited for once, as in a loop that does not look at every loss. Given are also images
and FLOP a second, and the share of the chip's peak: the convolutions and products are counted in our network as it is written,
once forwards and twice backwards, and the count is the same for all sides (PyTorch's convolutions of doubled pixels take 6 %
more). With `--dtype bfloat16` PyTorch runs under
autocast; float32 products are rounded to TF32 on both sides, as JAX does by itself. Where both share one card,
`XLA_PYTHON_CLIENT_PREALLOCATE=false` leaves PyTorch its part of the memory.

Limits, which decide the exit status, on CPU in float32: the forward pass takes no longer than the faster PyTorch; the step
takes at most 0.7 of what the code published in JAX took (`REFERENCE`), scaled by what PyTorch's eager step takes now over
what it took then. `README.md` in this folder says where the time goes.
"""

import argparse
import contextlib
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.train_step import ours, peaks
from experiments.train_step.rivals import Rival, torch_version
from experiments.train_step.seconds import Seconds, medians
from sdelab.cli.xla_flags import choose_fusions

MULTIPLIERS, BLOCKS, ATTENDED, DROPOUT = (1, 2, 2), 2, (1,), 0.1
AGREEMENT = 1e-4
ROUNDED = 0.2
"""The same where products are rounded to bfloat16 or TF32; two networks that differ are further apart."""
FRACTION = 0.7
WHATS = ("forward", "step")


class Reference(NamedTuple):
    """Seconds that a step once took on two cores: PyTorch's, eager, and the code of Song et al. in JAX."""

    torch: float
    jax: float


REFERENCE = {32: Reference(0.24, 0.41), 64: Reference(0.67, 1.12)}


class Result(NamedTuple):
    """Medians of each side, the most wall-clock seconds that ours may take, None without a rival or a reference, and FLOP of
    one call."""

    what: str
    channels: int
    seconds: dict[str, Seconds]
    limit: float | None
    flops: int = 0

    @property
    def holds(self) -> bool:
        return self.limit is None or self.seconds["sdelab"].wall <= self.limit


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    version = torch_version(options.torch_python)
    if version is None:
        print(f"{options.torch_python} has no PyTorch: ours runs alone. `--torch-python PATH` names one that has.")
    results = [result for channels in options.channels for result in measure(channels, options, version is not None)]
    print(table(results))
    if on_gpu(options):
        print(rates(results, options))
    if options.output:
        options.output.write_text(json.dumps(report(results, version, options), indent=2) + "\n")
    return 0 if all(result.holds for result in results) else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments.train_step", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: what JAX finds")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the arithmetic")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64], help="at full resolution")
    parser.add_argument("--multipliers", type=int, nargs="+", default=MULTIPLIERS, help="of the channels, by level")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of a level")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--what", choices=WHATS, nargs="+", default=WHATS)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each side")
    parser.add_argument("--repeats", type=int, help="calls of a run (default: 1, on a GPU 10)")
    parser.add_argument(
        "--threads", type=int, default=2, help="of PyTorch; XLA takes every core that the process may use"
    )
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has PyTorch")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile, which takes a minute")
    parser.add_argument("--mode", default="default", help="of torch.compile")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args(arguments)
    if options.device:
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda,cpu"}[options.device])
    options.repeats = options.repeats or (10 if on_gpu(options) else 1)
    return options


def on_gpu(options: argparse.Namespace) -> bool:
    return (options.device or jax.default_backend()) == "gpu"


def limited(options: argparse.Namespace) -> bool:
    """Whether it is the comparison that the limits are of."""
    network = (tuple(options.multipliers), options.blocks) == (MULTIPLIERS, BLOCKS)
    return network and options.dtype == "float32" and not on_gpu(options)


def measure(channels: int, options: argparse.Namespace, has_torch: bool) -> list[Result]:
    """The forward pass and the step of one width, all sides in turns."""
    shape = tuple(options.multipliers), options.blocks
    module = ours.network(channels, *shape, DROPOUT, options.dtype)
    modes = {"PyTorch": None, "torch.compile": options.mode} if has_torch else {}
    if options.no_compile:
        modes.pop("torch.compile", None)
    network = {"channels": channels, "multipliers": shape[0], "blocks": shape[1], "attended": ATTENDED}
    settings = {"network": network, "dropout": DROPOUT, "device": "cuda" if on_gpu(options) else "cpu"}
    settings |= {name: getattr(options, name) for name in ("batch", "threads", "dtype", "repeats")}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rivals = {
            name: stack.enter_context(Rival(options.torch_python, folder, mode=mode, **settings))
            for name, mode in modes.items()
        }
        first = next(iter(rivals.values()), None)
        params = ours.from_rival(first.state(), module) if first else ours.initial_weights(module)
        run = ours.Run(module, params, options.batch, options.repeats)
        if first:
            check_agreement(run, first, AGREEMENT if limited(options) else ROUNDED)
        sides = {"sdelab": run, **rivals}
        taken = {w: medians({n: getattr(s, w) for n, s in sides.items()}, options.rounds) for w in options.what}
        results = [result(what, channels, seconds, run.flops[what]) for what, seconds in taken.items()]
    return results if limited(options) else [r._replace(limit=None) for r in results]


def check_agreement(run: ours.Run, rival: Rival, most: float) -> None:
    """Both are one network. Errors: another number of parameters, or another output."""
    count = sum(leaf.size for leaf in jax.tree.leaves(run.params))
    theirs, here = rival.evaluate(run.x, run.c_noise), run.evaluate()
    gap = float(np.max(np.abs(theirs - here)) / np.max(np.abs(theirs)))
    print(
        f"{count} parameters here, {rival.parameters} in PyTorch; largest relative difference of the outputs: {gap:.1e}"
    )
    if count != rival.parameters or not gap <= most:
        raise SystemExit("the two networks are not the same one.")


def result(what: str, channels: int, seconds: dict[str, Seconds], flops: int = 0) -> Result:
    rivals = [taken.wall for name, taken in seconds.items() if name != "sdelab"]
    limit = None
    if what == "forward" and rivals:
        limit = min(rivals)
    elif what == "step" and "PyTorch" in seconds and channels in REFERENCE:
        reference = REFERENCE[channels]
        limit = FRACTION * reference.jax * seconds["PyTorch"].wall / reference.torch
    return Result(what, channels, seconds, limit, flops)


def table(results: list[Result]) -> str:
    """Seconds on the wall, and in brackets those of all cores together."""
    head = f"{'':<22}" + "".join(f"{name:>18}" for name in results[0].seconds) + f"{'limit':>8}"
    rows = [
        f"{f'{r.what}, {r.channels} channels':<22}"
        + "".join(f"{f'{taken.wall:.3f} ({taken.cores:.2f})':>18}" for taken in r.seconds.values())
        + (f"{'':>8}" if r.limit is None else f"{r.limit:>8.3f}")
        + ("" if r.holds else "  over the limit")
        for r in results
    ]
    return "\n".join([head, *rows])


def rates(results: list[Result], options: argparse.Namespace) -> str:
    """A line for each side: images and FLOP a second, and the share of the chip's peak."""
    lines = [f"{jax.devices()[0].device_kind}, {options.dtype}, batch {options.batch}"]
    for r in results:
        for name in r.seconds:
            lines.append(f"{r.what}, {r.channels} channels, {name}: {peaks.words(rate_of(r, name, options))}")
    return "\n".join(lines)


def rate_of(result: Result, side: str, options: argparse.Namespace) -> peaks.Rate:
    return peaks.rate(result.seconds[side], options.batch, result.flops, jax.devices()[0].device_kind, options.dtype)


def report(results: list[Result], version: str | None, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": version,
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        **{name: getattr(options, name) for name in ("dtype", "batch", "multipliers", "blocks", "repeats", "mode")},
        "results": [
            {**r._asdict(), "holds": r.holds, "rates": {side: rate_of(r, side, options) for side in r.seconds}}
            for r in results
        ],
    }


if __name__ == "__main__":
    choose_fusions()
    sys.exit(main())
