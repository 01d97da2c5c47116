"""`sdelab sample`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from sdelab import plot
from sdelab._checks import check_count
from sdelab.cli.checkpoint import chosen_step, define_checkpoint
from sdelab.cli.choices import CORRECTORS, FINISHES, GRIDS, PREDICTORS, SEQUENCES, SOLVERS, Options, choose
from sdelab.cli.usage import UsageError, new_flags, parse, print_table
from sdelab.data import GreyLevels
from sdelab.evaluate import draw
from sdelab.train import TrainedRun, load_run
from sdelab.train.build import build_dataset
from sdelab.train.workdir import make_writable

SUMMARY = "Draws samples from the run in workdir: an .npz file and a picture."


def run(argv: list[str]) -> int:
    """Samples, writes, prints what it cost."""
    values = new_flags()
    define_options(values)
    flags.DEFINE_integer("count", 64, "number of samples", flag_values=values)
    flags.DEFINE_integer("label", None, "label of all samples (default: each class in turn)", flag_values=values)
    flags.DEFINE_integer("seed", 0, "seed of the samples", flag_values=values)
    flags.DEFINE_string(
        "output", None, "path of the .npz and .png files (default: samples in workdir)", flag_values=values
    )
    given = parse(values, argv, SUMMARY)
    if given is None:
        return 0
    check_count(count=given.count)
    trained = load_run(given.workdir, given.average, step=chosen_step(given.workdir, given.checkpoint))
    labels = choose_labels(trained, given.count, given.label)
    process, arguments = choose(read_options(given), trained.sde, trained.score)
    shape = (given.count, *trained.event_shape)
    path = Path(given.output or Path(given.workdir) / "samples")
    path = path.with_suffix("") if path.suffix in (".npz", ".png") else path
    make_writable(path.parent, "directory of the output")
    x, info = draw(jax.random.key(given.seed), process, shape, condition=labels, **arguments)
    written = write_samples(path, np.asarray(x), labels, trained)
    mean = "not counted" if info.evaluations is None else f"{float(np.mean(np.asarray(info.evaluations))):.1f}"
    print_table(
        [
            ("samples", f"{len(x)} by {values['solver'].value}, from step {trained.step}"),
            ("evaluations a sample", mean),
            *(("written", str(path)) for path in written),
        ]
    )
    return 0


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


def write_samples(path: Path, x: np.ndarray, labels: np.ndarray | None, trained: TrainedRun) -> list[Path]:
    """`path`.npz, with `x` in model units, `values` as the data are stored and `label`; and `path`.png."""
    scaling = trained.scaling
    arrays: dict[str, Any] = {"x": x, "values": scaling.decode(x)} | ({} if labels is None else {"label": labels})
    np.savez(path.with_name(path.name + ".npz"), **arrays)
    written = [path.with_name(path.name + ".npz")]
    if isinstance(scaling, GreyLevels):
        figure = plot.image_grid(x, low=scaling.low, high=scaling.high)
    elif trained.event_shape == (2,):
        figure = plot.scatter(x, reference=_held_out(trained))
    else:
        return written
    return [*written, plot.save(figure, path.with_name(path.name + ".png"))]


def _held_out(trained: TrainedRun) -> np.ndarray | None:
    """Points to compare with; None where the data are not."""
    try:
        dataset = build_dataset(trained.config)
    except FileNotFoundError:
        return None
    return dataset.encode(dataset.held_out)[:5000]
