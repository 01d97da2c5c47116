"""`sdelab sweep`."""

import json
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from sdelab.cli.config_file import PREFIX, apply_overrides, load_config, split_overrides
from sdelab.cli.grid import Combination, combinations, parse_axes
from sdelab.cli.train import define_flags, start
from sdelab.cli.usage import UsageError, new_flags, parse, print_table
from sdelab.train.build import build, declare_dataset
from sdelab.train.record import canonical, write_text
from sdelab.train.workdir import make_writable

SUMMARY = """Expands a grid of overrides into runs with workdirs of their own, each of which is checked before anything is written.

`sdelab sweep --config FILE --workdir DIR --grid KEY=VALUE,VALUE --grid KEY=VALUE,VALUE` writes the list DIR/runs.jsonl, with the
whole config of every run; --config.section.key=value holds for all of them.
`sdelab sweep run --workdir DIR --index N` trains run N of it, or goes on with it, in DIR/NAME; as an array job of SLURM,
`--index $SLURM_ARRAY_TASK_ID`. It takes the flags of `sdelab train`."""

RUNS = "runs.jsonl"
"""The list of runs in the workdir of a sweep, one JSON object a line: `index`, `name`, `overrides` and `config`."""


def run(argv: list[str]) -> int:
    """Plans the sweep, or trains one run of it; the exit code is that of `sdelab train` then."""
    if argv[1:2] == ["run"]:
        return _run_one([f"{argv[0]} run", *argv[2:]])
    values = new_flags()
    flags.DEFINE_string("config", None, "path of a config file", flag_values=values)
    help = "KEY=VALUE,VALUE, one axis of the grid; may be repeated"
    flags.DEFINE_multi_string("grid", [], help, flag_values=values)
    rest, overrides = split_overrides(argv)
    given = parse(values, rest, SUMMARY, required=("config", "workdir"))
    if given is None:
        return 0
    runs, folder = plan(given.config, overrides, given.grid), Path(given.workdir)
    if not _is_listed(folder, runs):
        for one in tqdm(runs, unit="config", disable=None):  # it takes some seconds for a large network
            _check(one["config"], one["name"])
        make_writable(folder, "workdir")
        write_text(folder / RUNS, _lines(runs))
    print_table([("run", "workdir"), *((str(one["index"]), str(folder / one["name"])) for one in runs)])
    print(
        f"written to {folder / RUNS}; `sdelab sweep run --workdir {folder} --index N` trains run N, 0 to {len(runs) - 1}"
    )
    return 0


def plan(path: str, overrides: list[str], grid: list[str]) -> list[dict[str, Any]]:
    """The runs of the grid about the config, in the form of `RUNS`.

    Errors: `UsageError` for no grid, for a key that is fixed and in the grid, for a key or value that is not accepted, by the name
    of its run, and for two runs of one config.
    """
    if not grid:
        raise UsageError("--grid is missing: a sweep has at least one axis, as --grid optim.learning_rate=1e-4,2e-4.")
    axes = parse_axes(grid)
    fixed = {word.removeprefix(PREFIX).partition("=")[0] for word in overrides}
    for key in axes:
        if key in fixed:
            raise UsageError(f"{key} is fixed by {PREFIX}{key} and an axis of the grid; accepted: one of them.")
    made, seen = [], dict[str, str]()
    for index, one in enumerate(combinations(axes)):
        config = _config(path, overrides, one)
        same = seen.setdefault(json.dumps(config, sort_keys=True), one.name)
        if same != one.name:
            raise UsageError(f"the runs {same} and {one.name} of the grid are one run: their configs are equal.")
        made.append({"index": index, "name": one.name, "overrides": list(one.overrides), "config": config})
    return made


def _config(path: str, overrides: list[str], one: Combination) -> dict[str, Any]:
    """The config of a run, as JSON has it."""
    try:
        return canonical(apply_overrides(load_config(path), [*overrides, *one.overrides]))
    except UsageError as error:
        raise UsageError(f"the run {one.name}: {error}") from error


def _check(config: dict[str, Any], name: str) -> None:
    """Builds the experiment, and traces a step of it, without its data."""
    try:
        build(config, declare_dataset(config))
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"the run {name}: {error}") from error


def _is_listed(folder: Path, runs: list[dict[str, Any]]) -> bool:
    """Whether the folder has the list of these runs already. Errors: that of another sweep."""
    path = folder / RUNS
    if not path.exists():
        return False
    if path.read_text() != _lines(runs):
        raise UsageError(f"{path} lists another sweep; its runs would get lost. Use another workdir.")
    return True


def _lines(runs: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one, sort_keys=True) + "\n" for one in runs)


def _run_one(argv: list[str]) -> int:
    values = new_flags()
    flags.DEFINE_integer("index", None, "number of the run, from 0", flag_values=values)
    define_flags(values)
    given = parse(values, argv, SUMMARY, required=("workdir", "index"))
    if given is None:
        return 0
    one = read_run(Path(given.workdir), given.index)
    return start(given, one["config"], Path(given.workdir) / one["name"])


def read_run(folder: Path, index: int) -> dict[str, Any]:
    """Run number `index` of the sweep in the folder. Errors: no sweep; a number that it does not have."""
    path = folder / RUNS
    if not path.is_file():
        raise UsageError(
            f"no sweep in {folder}: it has no {RUNS}. `sdelab sweep --config FILE --workdir {folder} --grid ...` makes it."
        )
    lines = path.read_text().splitlines()
    if not 0 <= index < len(lines):
        raise UsageError(f"--index={index} is not accepted; the sweep in {folder} has the runs 0 to {len(lines) - 1}.")
    return json.loads(lines[index])
