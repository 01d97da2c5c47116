"""`sdelab sample`."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from absl import flags

from sdelab import plot
from sdelab._checks import check_count
from sdelab.cli.checkpoint import chosen_step, define_checkpoint
from sdelab.cli.choices import (
    CHURN_OPTIONS,
    CORRECTORS,
    FINISHES,
    GRIDS,
    PREDICTORS,
    SEQUENCES,
    SOLVERS,
    Options,
    choose,
)
from sdelab.cli.devices import build_devices, define_devices, on_devices
from sdelab.cli.usage import UsageError, new_flags, parse, print_table
from sdelab.data import GreyLevels
from sdelab.evaluate import AbstractParts, InMemory, Shards, complete, sampling, write_npz
from sdelab.evaluate.batched import Finish
from sdelab.train import TrainedRun, load_run
from sdelab.train.build import build_dataset
from sdelab.train.distributed import is_main
from sdelab.train.record import versions
from sdelab.train.workdir import make_writable

SUMMARY = "Draws samples from the run in workdir, over all devices: one .npz file, or a folder of them; and a picture."
SHOWN, SHOWN_POINTS = 256, 5000
"""Images, or points in the plane, of a picture."""


def run(argv: list[str]) -> int:
    """Samples, writes, prints what it cost; 0 when done, 42 when asked to stop and something is kept."""
    values = new_flags()
    define_options(values)
    define_devices(values)
    flags.DEFINE_integer("count", 64, "number of samples", flag_values=values)
    flags.DEFINE_integer("label", None, "label of all samples (default: each class in turn)", flag_values=values)
    flags.DEFINE_integer("seed", 0, "seed of the samples", flag_values=values)
    help = (
        "a path that ends in .npz, for one file, or a folder, with a file for each batch, which the same command completes "
        "if it was stopped (default: samples.npz in workdir)"
    )
    flags.DEFINE_string("output", None, help, flag_values=values)
    given = parse(values, argv, SUMMARY)
    if given is None:
        return 0
    check_count(count=given.count)
    return on_devices(given, lambda: sample(given))


def sample(given: Any) -> None:
    """Draws what the flags ask for, writes it, and says what it cost."""
    path = Path(given.output or Path(given.workdir) / "samples.npz")
    if path.suffix == ".png":
        raise UsageError(f"--output={path} is not accepted; accepted: a path that ends in .npz, or a folder.")
    placement, step = build_devices(given), chosen_step(given.workdir, given.checkpoint)
    trained = load_run(given.workdir, given.average, step=step, placement=placement)
    labels = choose_labels(trained, given.count, given.label)
    process, arguments = choose(read_options(given), trained.sde, trained.score)
    work = sampling(
        jax.random.key(given.seed), process, trained.event_shape, placement=placement, condition=labels, **arguments
    )
    with _open(path, given, trained) as parts:
        complete(parts, work, placement, finish=stored(trained, labels), patience=given.patience)
        if is_main():
            report(given, trained, parts, written=_write(path, parts, trained))


def _open(path: Path, given: Any, trained: TrainedRun) -> AbstractParts:
    if path.suffix == ".npz":
        make_writable(path.parent, "directory of the output")
        return InMemory(given.count, given.batch)
    return open_shards(path, given, trained, "output", seed=given.seed, label=given.label)


def open_shards(
    folder: Path, given: Any, trained: TrainedRun, name: str, *, count: int | None = None, **settings: Any
) -> Shards:
    """The shards of samples, or of what else is a function of a run, a sampler and `settings`."""
    record = {
        "run": {"step": trained.step, "weights": given.average, "checkpoint": trained.digest},
        "sampler": dataclasses.asdict(read_options(given)),
        **settings,
    }
    notes = {
        "workdir": str(given.workdir),
        "config": trained.config,
        "versions": versions(),
    }
    return Shards(folder, record, given.count if count is None else count, given.batch, notes=notes, name=name)


def define_options(values: flags.FlagValues) -> None:
    """The flags that choose a sampler."""
    help = "of the weights: ema, one of the config's averages, or one that `sdelab ema` made"
    flags.DEFINE_string("average", "ema", help, flag_values=values)
    define_checkpoint(values)
    flags.DEFINE_string("solver", "euler_maruyama", ", ".join(SOLVERS), flag_values=values)
    flags.DEFINE_integer("steps", None, "steps of a fixed grid", flag_values=values)
    flags.DEFINE_string("grid", "uniform", f"spacing of the steps: {', '.join(GRIDS)}", flag_values=values)
    flags.DEFINE_float("rtol", None, "relative tolerance of adaptive steps", flag_values=values)
    flags.DEFINE_float("atol", None, "absolute tolerance of adaptive steps", flag_values=values)
    flags.DEFINE_string("finish", "none", f"the last denoising step: {', '.join(FINISHES)}", flag_values=values)
    for name, table in (("predictor", PREDICTORS), ("corrector", CORRECTORS), ("sequence", SEQUENCES)):
        flags.DEFINE_string(name, None, f"of predictor_corrector: {', '.join(table)}", flag_values=values)
    flags.DEFINE_float("snr", None, "signal-to-noise ratio of the corrector", flag_values=values)
    flags.DEFINE_integer("corrector_steps", None, "corrector steps at each time", flag_values=values)
    for name, what in CHURN_OPTIONS.items():
        flags.DEFINE_float(name, None, f"of churn, EDM's stochastic sampler: {what}", flag_values=values)
    flags.DEFINE_float("stochasticity", None, "noise of the reverse SDE, 1 is Anderson's", flag_values=values)


def read_options(given: Any) -> Options:
    return Options(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Options)})


def choose_labels(trained: TrainedRun, count: int, label: int | None) -> np.ndarray | None:
    """One label per sample, or None for a run without labels. Errors: a label that the run does not have."""
    if not trained.conditional:
        if label is not None:
            raise UsageError(f"--label={label}: this run was trained without labels.")
        return None
    classes = trained.config["model"]["classes"]
    if label is None:
        return np.arange(count, dtype=np.int32) % classes
    if not 0 <= label < classes:
        raise UsageError(f"--label={label} is not accepted; accepted: 0 to {classes - 1}.")
    return np.full(count, label, np.int32)


def stored(trained: TrainedRun, labels: np.ndarray | None) -> Finish:
    """What is kept of samples: `x` in model units, `values` as the data are stored, `label`, and `evaluations` of the score."""

    def finish(rows: np.ndarray, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        kept = {"x": arrays["x"], "values": trained.scaling.decode(arrays["x"])}
        if labels is not None:
            kept["label"] = labels[rows]
        return kept | {name: array for name, array in arrays.items() if name == "evaluations"}

    return finish


def _write(path: Path, parts: AbstractParts, trained: TrainedRun) -> list[Path]:
    """One file, unless the parts are files already; and a picture of what fits into one."""
    if path.suffix == ".npz":
        found = {name: parts.read(name) for name in ("x", "values", "label", "evaluations")}
        write_npz(path, {name: array for name, array in found.items() if array is not None})
        picture = path.with_suffix(".png")
    else:
        picture = path / "samples.png"
    figure = _figure(parts, trained)
    return [path] if figure is None else [path, plot.save(figure, picture)]


def _figure(parts: AbstractParts, trained: TrainedRun) -> plot.Figure | None:
    if isinstance(trained.scaling, GreyLevels):
        return plot.image_grid(_first(parts, SHOWN), low=trained.scaling.low, high=trained.scaling.high)
    if trained.event_shape == (2,):
        return plot.scatter(_first(parts, SHOWN_POINTS), reference=_held_out(trained))
    return None


def _first(parts: AbstractParts, count: int) -> np.ndarray:
    return cast(np.ndarray, parts.read("x", count))


def report(given: Any, trained: TrainedRun, parts: AbstractParts, written: list[Path]) -> None:
    """What was drawn, what it cost, and where it is."""
    evaluations = parts.read("evaluations")
    mean = "not counted" if evaluations is None else f"{float(np.mean(evaluations)):.1f}"
    rows = [
        ("samples", f"{given.count} by {given.solver}, from step {trained.step}"),
        ("evaluations a sample", mean),
    ]
    print_table([*rows, *(("written", str(path)) for path in written)])


def _held_out(trained: TrainedRun) -> np.ndarray | None:
    """Points to compare with; None where the data are not."""
    try:
        dataset = build_dataset(trained.config)
    except FileNotFoundError:
        return None
    return dataset.encode(dataset.held_out)[:SHOWN_POINTS]
