"""`sdelab import`."""

import importlib.util
import json
import runpy
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict

from sdelab._checks import unknown_name
from sdelab.cli.usage import UsageError, new_flags, parse, print_table
from sdelab.interop.importing import FAMILIES, ImportedRun, import_checkpoint
from sdelab.interop.translation import Family, assignment, literal, merged

SUMMARY = """Makes a run of FILE, a published checkpoint, in workdir: `sdelab sample`, `evaluate` and `export` take it.

The file is read without torch, and nothing in it is executed. A checkpoint of score_sde does not hold its configuration:
name a published one with --config, as `--config vp/cifar10_ddpmpp_continuous`, or give a file; a .py is executed. EDM's do hold it."""


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
    flags.DEFINE_multi_string(
        "data_option", [], "setting of that data set, as path=ffhq-256.zip; may be repeated", flag_values=values
    )
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
    data = data_section(given.data, given.data_option)
    made = import_checkpoint(given.FILE, given.workdir, family=kind, config=config, weights=given.weights, data=data)
    print_table(_rows(made, given))
    return 0


WORDS = ("path", "dataset", "directory")
"""Options of data sets that are text, whatever they look like."""


def data_section(name: str | None, options: list[str]) -> dict[str, Any] | None:
    """Section `data` of the run. Errors: options without a data set; one that is no `KEY=VALUE`."""
    if name is None:
        if options:
            raise UsageError(f"--data_option={options[0]} needs --data, the name of a data set.")
        return None
    section: dict[str, Any] = {"name": name}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key in ("", "name"):
            raise UsageError(f"--data_option={option} is not accepted; accepted: KEY=VALUE, such as path=ffhq-256.zip.")
        section[key] = value if key in WORDS else literal(value)
    return section


def published_config(family: Family, name: str | None, changes: list[str]) -> dict[str, Any]:
    """The configuration of that name or file, with the changes. Errors: `UsageError`; those of `assignment`."""
    if name is None and not family.described:
        known = ", ".join(sorted(family.presets))
        raise UsageError(f"--config is missing: the checkpoint does not hold its configuration. Known: {known}.")
    if name is not None and family.described and not Path(name).is_file():
        raise UsageError(f"--config={name}: there is no such file. FILE holds its configuration; --set changes it.")
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
    elif path.suffix == ".py":
        config = _run(path)
    else:
        raise UsageError(f"--config={name} is not accepted; accepted: a name, a .json or a .py with get_config().")
    if isinstance(config, ConfigDict):
        config = config.to_dict()
    if not isinstance(config, Mapping) or not config:
        raise UsageError(f"--config={name} is no configuration: a JSON object, or a get_config() that returns one.")
    return dict(config)


def _run(path: Path) -> Any:
    """What `get_config()` of a file returns. The published ones import their defaults from the folder above `configs`.

    Those of score_sde_pytorch ask torch for a device. Where it is not installed, a module of that name answers "cpu".
    """
    folders = path.resolve().parents
    root = next((folder.parent for folder in folders if folder.name == "configs"), folders[0])
    modules, places = dict(sys.modules), list(sys.path)
    for name in [name for name in modules if name.split(".")[0] == "configs"]:
        del sys.modules[name]
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:  # nothing, or a folder of that name
        sys.modules["torch"] = _without_torch()
    sys.path.insert(0, str(root))
    try:
        return runpy.run_path(str(path)).get("get_config", dict)()
    except Exception as error:
        raise UsageError(f"--config={path} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        for name, module in list(sys.modules.items()):  # before the path is another: a package without a file asks it
            if name not in modules and (name == "torch" or _lies_in(module, root)):
                del sys.modules[name]
        sys.path[:] = places
        sys.modules.update({name: modules[name] for name in modules if sys.modules.get(name) is not modules[name]})


def _lies_in(module: types.ModuleType, root: Path) -> bool:
    """A module, or a package without a file of its own, that is no installed one."""
    places = [Path(place) for place in (getattr(module, "__file__", None), *getattr(module, "__path__", ())) if place]
    return any(place.resolve().is_relative_to(root) and "site-packages" not in place.parts for place in places)


def _without_torch() -> types.ModuleType:
    module: Any = types.ModuleType("torch")
    module.device = str
    module.cuda = types.SimpleNamespace(is_available=lambda: False)
    return module


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
