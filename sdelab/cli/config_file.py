"""Config files, and the flags `--config.section.key=value` that override them."""

import contextlib
import inspect
import runpy
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from sdelab._checks import unknown_name
from sdelab.cli.usage import UsageError, checked
from sdelab.data.registry import LOADERS
from sdelab.train.augmented import AUGMENTATIONS
from sdelab.train.build import DECAYS, MODELS, OPTIONAL_SECTIONS, PRECONDITIONERS, SDES, Optim, parameters_of
from sdelab.train.objective import TABLES, arguments_of, named_parts
from sdelab.train.run import Run

PREFIX = "--config."
NAMED: dict[str, Mapping[str, Callable[..., Any]]] = {
    "augment": AUGMENTATIONS,
    "data": LOADERS,
    "ema": DECAYS,
    "model": MODELS,
    "preconditioner": PRECONDITIONERS,
    "sde": SDES,
}
"""Sections whose keys are the arguments of what their `name` says."""
UNNAMED: dict[str, Callable[..., Any]] = {"optim": Optim, "run": Run}
"""Sections that are the arguments of one class."""

_ZEROS: dict[Any, Any] = {float: 0.0, "float": 0.0, int: 0, "int": 0, str: "", "str": ""}


def split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """The words that are no overrides of the config, and those that are, each as `--config.section.key=value`."""
    rest, overrides, words = [], [], iter(argv)
    for word in words:
        if not word.startswith(PREFIX):
            rest.append(word)
        elif "=" in word:
            overrides.append(word)
        else:
            overrides.append(f"{word}={next(words, '')}")
    return rest, overrides


def load_config(path: str) -> Any:
    """What `get_config()` of the file returns, a `ConfigDict`; the file may import modules that lie beside it.

    Errors: `UsageError` if there is no such file, function or value.
    """
    if not Path(path).is_file():
        raise UsageError(f"--config={path}: there is no such file.")
    with _importable(Path(path).resolve().parent):
        get_config = runpy.run_path(path).get("get_config")
        if not callable(get_config):
            raise UsageError(f"--config={path} is no config file: it does not define get_config().")
        config = get_config()
    if not isinstance(config, ConfigDict):
        raise UsageError(
            f"--config={path}: get_config() returned a {type(config).__name__}; accepted: ml_collections.ConfigDict."
        )
    return config


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Within the context, modules in the folder can be imported, as by a script in it. They are forgotten afterwards: those
    of another config may have their names."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).resolve().is_relative_to(folder):
                del sys.modules[name]


def apply_overrides(config: Any, overrides: list[str]) -> dict[str, Any]:
    """The config with the overrides, as plain dicts.

    A key that the file leaves out starts from the default of what the section names. A new `name` starts its section
    anew, from the defaults of what it names; a new part of the loss drops the arguments of the part before it.
    Errors: `UsageError` for an unknown section or key, with the closest, and for a value of the wrong type.
    """
    chosen = [word.removeprefix(PREFIX).partition("=")[::2] for word in overrides]
    with config.unlocked():
        for key, value in chosen:
            section, _, name = key.partition(".")
            if name == "name":
                _rename(config, section, value)
        for key, value in chosen:
            section, _, name = key.partition(".")
            if section == "loss" and name in TABLES and "loss" in config:
                _exchange_part(config.loss, name, value)
        for key, _ in chosen:
            _complete(config, *key.partition(".")[::2])
    values = flags.FlagValues()
    checked(
        lambda: config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["sdelab", *overrides])
    )
    checked(lambda: values(["sdelab", *overrides]))
    return config.to_dict()


def _rename(config: Any, section: str, name: str) -> None:
    if section not in NAMED and section != "loss":
        return
    former = config[section].get("name", "denoising" if section == "loss" else None) if section in config else None
    if former != name and (section in config or section in OPTIONAL_SECTIONS):
        config[section] = ConfigDict({"name": name})


def _exchange_part(loss: Any, kind: str, name: str) -> None:
    """Names another part of the loss, and drops what only the one before it took."""
    former = _named_parts(loss.to_dict())
    if kind not in former or former[kind] == name:
        return
    loss[kind] = name
    gone = set(arguments_of({kind: former[kind]})) - set(arguments_of(_named_parts(loss.to_dict())))
    for key in gone & set(loss):
        del loss[key]


def _named_parts(settings: Mapping[str, Any]) -> dict[str, str]:
    try:
        return named_parts(settings)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _complete(config: Any, section: str, name: str) -> None:
    """Gives the section the key, with its default. Errors: a section or key that nothing reads."""
    if section not in config:
        if section in NAMED and section in OPTIONAL_SECTIONS:
            raise UsageError(f"the config has no section {section!r}; --config.{section}.name=NAME gives it one.")
        raise UsageError(str(unknown_name("section of the config", section, config)))
    if not isinstance(config[section], ConfigDict):
        if name:
            raise UsageError(f"config.{section} is a value and has no key {name!r}.")
        return
    if isinstance(config[section].get(name.partition(".")[0]), ConfigDict):
        return  # a section in the section: what it holds can be overridden, and ml_collections knows it
    known = {**_defaults(section, config[section].to_dict()), **dict(config[section])}
    if name not in known:
        raise UsageError(str(unknown_name(f"key of config.{section}", name, known)))
    config[section][name] = known[name]


def _defaults(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What else the section may say, with defaults that a command line can say."""
    if section == "loss":
        names = _named_parts(settings)
        return {"name": "denoising", **names, **_plain(arguments_of(names))}
    constructor = UNNAMED.get(section) or NAMED.get(section, {}).get(settings.get("name", ""))
    return {} if constructor is None else _plain(parameters_of(constructor))


def _plain(parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The defaults that are numbers, words, tuples, and dtypes by their names; where there is none, something of the type."""
    plain = {}
    for key, parameter in parameters.items():
        default = parameter.default
        if key.endswith("dtype"):
            plain[key] = jnp.dtype(default).name
        elif isinstance(default, (bool, int, float, str, tuple, np.number)) and default is not inspect.Parameter.empty:
            plain[key] = default
        elif default is inspect.Parameter.empty and parameter.annotation in _ZEROS:
            plain[key] = _ZEROS[parameter.annotation]
        elif default is None and (kind := _kind_of(parameter.annotation)) is not None:
            plain[key] = config_dict.placeholder(kind)
    return plain


def _kind_of(annotation: Any) -> type | None:
    """The type of what an argument is if it is not None; None for what a command line cannot say."""
    kinds = {typing.get_origin(kind) or kind for kind in typing.get_args(annotation)}
    return next((kind for kind in (tuple, float, int, str) if kind in kinds), None)
