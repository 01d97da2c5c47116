"""`sdelab import`."""

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict

from sdelab._checks import unknown_name
from sdelab.cli.usage import UsageError, new_flags, parse, print_table
from sdelab.interop.importing import FAMILIES, ImportedRun, import_checkpoint
from sdelab.interop.translation import Family, assignment, merged

SUMMARY = """Makes a run of FILE, a published checkpoint, in workdir: `sdelab sample`, `evaluate` and `export` take it.

The file is read without torch, and nothing in it is executed. A checkpoint of score_sde does not hold its configuration:
name a published one with --config, as `--config vp/cifar10_ddpmpp_continuous`, or give a file. EDM's do hold it."""


def run(argv: list[str]) -> int:
    """Imports, and prints what came of it."""
    values = new_flags()
    flags.DEFINE_string("from", None, f"what wrote FILE: {', '.join(FAMILIES)}", flag_values=values)
    flags.DEFINE_string(
        "config", None, "published configuration: a name, a .json or a .py with get_config()", flag_values=values
    )
    flags.DEFINE_multi_string(
        "set",
        [],
        "change of it in its own words, as model.nf=64 or training.sde=vpsde; may be repeated",
        flag_values=values,
    )
    flags.DEFINE_string("weights", "averaged", "which weights to sample with: averaged, raw", flag_values=values)
    flags.DEFINE_string("data", None, "data set to evaluate on and train with (default: none)", flag_values=values)
    given = parse(values, argv, SUMMARY, required=("from", "workdir"), words=("FILE",))
    if given is None:
        return 0
    kind = getattr(given, "from")
    if kind not in FAMILIES:
        raise unknown_name("--from", kind, FAMILIES)
    if not Path(given.FILE).is_file():
        raise UsageError(f"FILE = {given.FILE}: there is no such file.")
    config = published_config(FAMILIES[kind], given.config, given.set)
    logging.set_verbosity(logging.ERROR)  # Orbax reports every save
    made = import_checkpoint(
        given.FILE, given.workdir, family=kind, config=config, weights=given.weights, data=given.data
    )
    print_table(_rows(made, given))
    return 0


def published_config(family: Family, name: str | None, changes: list[str]) -> dict[str, Any]:
    """The configuration of that name or file, with the changes. Errors: `UsageError`; those of `assignment`."""
    if name is None and not family.described:
        known = ", ".join(sorted(family.presets))
        raise UsageError(f"--config is missing: the checkpoint does not hold its configuration. Known: {known}.")
    config = {} if name is None else _load(family, name)
    for change in changes:
        config = merged(config, assignment(change, family.known))
    return config


def _load(family: Family, name: str) -> dict[str, Any]:
    path = Path(name)
    if name in family.presets:
        return dict(family.presets[name])
    if not path.is_file():
        raise UsageError(
            f"--config={name}: there is no such file, and {unknown_name('configuration', name, family.presets)}"
        )
    if path.suffix == ".json":
        try:
            config = json.loads(path.read_text())
        except ValueError as error:
            raise UsageError(f"--config={name} is no JSON: {error}.") from error
    else:
        config = runpy.run_path(name).get("get_config", dict)()
    if isinstance(config, ConfigDict):
        config = config.to_dict()
    if not isinstance(config, Mapping) or not config:
        raise UsageError(f"--config={name} is no configuration: a JSON object, or a get_config() that returns one.")
    return dict(config)


def _rows(made: ImportedRun, given: Any) -> list[tuple[str, str]]:
    config = made.config
    return [
        ("weights", f"{given.weights}, of step {made.step}"),
        (
            "parameters",
            f"{made.numbers} in {made.arrays} arrays; the other {made.buffers} of the file are tables and filters",
        ),
        ("network", config["model"]["name"]),
        ("process", f"{config['sde']['name']}, {config['preconditioner']['name']}"),
        ("data", given.data or "none: give --data to evaluate or to train"),
        ("written", str(given.workdir)),
    ]
