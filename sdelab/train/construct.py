"""From names and numbers to one object, every key checked."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sdelab._checks import unknown_name

Section = Mapping[str, Any]


def named(section: str, table: Mapping[str, Callable[..., Any]], settings: Section, **given: Any) -> Any:
    """The object that a section with a `name` describes; `given` are arguments that do not come from the config."""
    name, settings = _split_name(section, settings)
    if name not in table:
        raise unknown_name(section, str(name), table)
    return construct(section, table[name], settings, **given)


def construct(section: str, constructor: Callable[..., Any], settings: Section, **given: Any) -> Any:
    """Calls the constructor with the section's keys, after checking that it has them all. Lists are JSON for tuples."""
    parameters = parameters_of(constructor)
    known = [name for name in parameters if name not in given]
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    for key in settings:
        if key not in known:
            raise unknown_name(f"key of config.{section}", key, known)
    required = [k for k in known if parameters[k].default is inspect.Parameter.empty and k not in settings]
    if required:
        raise ValueError(f"config.{section} lacks {', '.join(required)}.")
    try:
        return constructor(**settings, **given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"config.{section}: {error}") from error


def parameters_of(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function or class, by name."""
    # of `__init__`: the metaclass of NNX modules hides the signature of the class
    signature = inspect.signature(constructor.__init__ if isinstance(constructor, type) else constructor)
    return {name: parameter for name, parameter in signature.parameters.items() if name != "self"}


def _split_name(section: str, settings: Section) -> tuple[str, dict[str, Any]]:
    if "name" not in settings:
        raise ValueError(f"config.{section} lacks a name.")
    return settings["name"], {key: value for key, value in settings.items() if key != "name"}
