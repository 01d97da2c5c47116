"""`sdelab data inspect`."""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from sdelab import plot
from sdelab._checks import check_count, unknown_name
from sdelab.cli.config_file import apply_overrides, load_config, split_overrides
from sdelab.cli.usage import UsageError, parse, print_table
from sdelab.data import Dataset, GreyLevels
from sdelab.data.registry import LOADERS
from sdelab.data.summary import summarise
from sdelab.train.build import named
from sdelab.train.workdir import make_writable

SUMMARY = """Says what a data set holds, and draws some of it.

`sdelab data inspect --config FILE` looks at the data of a config, `sdelab data inspect --name NAME` at a data set by its name;
both take --config.data.key=value."""
ACTIONS = ("inspect",)


def run(argv: list[str]) -> int:
    """Inspects: prints the table and writes the picture."""
    action = argv[1] if len(argv) > 1 else ""
    if action not in ACTIONS and not action.startswith("-"):
        raise UsageError(str(unknown_name("action of `sdelab data`", action, ACTIONS)))
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "path of a config file", flag_values=values)
    flags.DEFINE_string("name", None, f"instead of a config: {', '.join(LOADERS)}", flag_values=values)
    flags.DEFINE_integer("count", 64, "number of samples in the picture", flag_values=values)
    flags.DEFINE_string("output", None, "path of the picture (default: the data set's name, .png)", flag_values=values)
    rest, overrides = split_overrides(argv[1:] if action in ACTIONS else argv)
    given = parse(values, [f"{argv[0]} {action}", *rest[1:]] if action in ACTIONS else argv, SUMMARY, required=())
    if given is None:
        return 0
    check_count(count=given.count)
    dataset = named("data", LOADERS, _section(given, overrides))
    path = Path(given.output or f"{dataset.name}.png")
    make_writable(path.parent, "directory of the output")
    rows = describe(dataset)
    figure = picture(dataset, given.count)
    print_table(rows if figure is None else [*rows, ("written", str(plot.save(figure, path)))])
    return 0


def describe(dataset: Dataset) -> list[tuple[str, str]]:
    """What there is to say about the training samples, and how many are held out."""
    numbers = summarise(dataset.train)
    ends = dataset.encode(np.array([numbers.low, numbers.high], dataset.train.dtype))
    rows = [
        ("data set", dataset.name),
        ("training samples", f"{len(dataset.train)}"),
        ("held-out samples", f"{len(dataset.held_out)}"),
        ("prepared by", dataset.preparation or "nothing: as stored"),
        ("shape", " x ".join(map(str, dataset.event_shape))),
        ("stored as", f"{dataset.train.dtype} in [{numbers.low:g}, {numbers.high:g}]"),
        ("mean", _listed(numbers.mean)),
        ("standard deviation", _listed(numbers.std)),
        ("in model units", f"[{ends[0]:.6g}, {ends[1]:.6g}] by {dataset.scaling}"),
        ("classes", _classes(dataset)),
        ("fingerprint", dataset.fingerprint),
    ]
    return rows


def picture(dataset: Dataset, count: int) -> Any:
    """A figure of `count` training samples, evenly spaced; None for what is neither image nor point in the plane."""
    total = len(dataset.train)
    rows = np.arange(min(count, total)) * total // min(count, total)
    samples, scaling = dataset.train[rows], dataset.scaling
    if isinstance(scaling, GreyLevels):
        return plot.image_grid(dataset.encode(samples), low=scaling.low, high=scaling.high, title=dataset.name)
    return plot.scatter(samples, title=dataset.name) if dataset.event_shape == (2,) else None


def _section(given: Any, overrides: list[str]) -> dict[str, Any]:
    if (given.config is None) == (given.name is None):
        raise UsageError("--config or --name is needed, and not both.")
    if given.name is not None and given.name not in LOADERS:
        raise unknown_name("data set", given.name, LOADERS)
    config = ConfigDict({"data": {"name": given.name}}) if given.config is None else load_config(given.config)
    return apply_overrides(config, overrides)["data"]


def _classes(dataset: Dataset) -> str:
    if dataset.train_labels is None:
        return "none"
    counts = np.bincount(dataset.train_labels, minlength=dataset.classes)
    return f"{dataset.classes}, of {counts.min()} to {counts.max()} training samples"


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
