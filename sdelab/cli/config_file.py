"""Config files, and the flags `--config.section.key=value` that override them."""

import inspect
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from sdelab._checks import unknown_name
from sdelab.cli.usage import UsageError, checked
from sdelab.data.registry import LOADERS
from sdelab.train.augmented import AUGMENTATIONS
from sdelab.train.build import DECAYS, MODELS, PRECONDITIONERS, SDES, parameters_of

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
    """What `get_config()` of the file returns, a `ConfigDict`. Errors: `UsageError` if there is no such file, function or value."""
    if not Path(path).is_file():
        raise UsageError(f"--config={path}: there is no such file.")
    get_config = runpy.run_path(path).get("get_config")
    if not callable(get_config):
        raise UsageError(f"--config={path} is no config file: it does not define get_config().")
    config = get_config()
    if not isinstance(config, ConfigDict):
        raise UsageError(
            f"--config={path}: get_config() returned a {type(config).__name__}; accepted: ml_collections.ConfigDict."
        )
    return config


def apply_overrides(config: Any, overrides: list[str]) -> dict[str, Any]:
    """The config with the overrides, as plain dicts.

    A key that the file leaves out starts from the default of what the section names. A new `name` starts its section
    anew, from the defaults of what it names.
    Errors: `UsageError` for an unknown section or key, with the closest, and for a value of the wrong type.
    """
    chosen = [word.removeprefix(PREFIX).partition("=")[::2] for word in overrides]
    with config.unlocked():
        for key, value in chosen:
            section, _, name = key.partition(".")
            if name == "name" and section in NAMED and section in config and config[section].get("name") != value:
                config[section] = ConfigDict({"name": value})
        for key, _ in chosen:
            _complete(config, *key.partition(".")[::2])
    values = flags.FlagValues()
    checked(
        lambda: config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["sdelab", *overrides])
    )
    checked(lambda: values(["sdelab", *overrides]))
    return config.to_dict()


def _complete(config: Any, section: str, name: str) -> None:
    """Gives the section the key, with its default. Errors: a section or key that nothing reads."""
    if section not in config:
        raise UsageError(str(unknown_name("section of the config", section, config)))
    if not isinstance(config[section], ConfigDict):
        if name:
            raise UsageError(f"config.{section} is a value and has no key {name!r}.")
        return
    if isinstance(config[section].get(name.partition(".")[0]), ConfigDict):
        return  # a section in the section: what it holds can be overridden, and ml_collections knows it
    known = {**_defaults(section, config[section].get("name")), **dict(config[section])}
    if name not in known:
        raise UsageError(str(unknown_name(f"key of config.{section}", name, known)))
    config[section][name] = known[name]


def _defaults(section: str, name: Any) -> dict[str, Any]:
    """Defaults that a command line can say: numbers, words, tuples, and dtypes by their names."""
    constructor = NAMED.get(section, {}).get(name)
    if constructor is None:
        return {}
    plain = {}
    for key, parameter in parameters_of(constructor).items():
        default = parameter.default
        if key.endswith("dtype"):
            plain[key] = jnp.dtype(default).name
        elif isinstance(default, (bool, int, float, str, tuple, np.number)) and default is not inspect.Parameter.empty:
            plain[key] = default
        elif default is inspect.Parameter.empty and parameter.annotation in _ZEROS:
            plain[key] = _ZEROS[parameter.annotation]
    return plain
