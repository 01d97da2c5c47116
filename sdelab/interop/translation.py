"""What a family of published models has in common: the conventions that its checkpoints rely on and do not hold."""

import ast
import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from sdelab._checks import unknown_name
from sdelab.data import GreyLevels

Config = Mapping[str, Any]

CENTRED, NOT_CENTRED = GreyLevels(256, -256 / 255, 256 / 255), GreyLevels(256, -1 / 510, 511 / 510)
"""The images that published networks were trained on, black at -1 and white at 1, or black at 0.

Published bits/dim put the edges of the darkest and the brightest bin there instead: with the bins' centres where training had them,
`sdelab evaluate` of an imported run looks at images that differ from those by up to half a bin, 1/255 or 1/510.
"""


@dataclasses.dataclass(frozen=True)
class Translation:
    """A published configuration in our words.

    Fields: `config`, the sections `sde`, `model`, `preconditioner`, `loss`, `optim` and `ema`; `event_shape`, of an image;
    `scaling`, of the data that the network saw; `steps`, of the published training.
    """

    config: Config
    event_shape: tuple[int, int, int]
    scaling: GreyLevels
    steps: int


@dataclasses.dataclass(frozen=True)
class Family:
    """How the models of one published code are described and placed.

    Fields: `translate`, a complete published configuration and the average's decay (None: not said);
    `place`, weights by their published names, as the parameters of a network of ours, which may hold shapes only;
    `presets`, published configurations by name; `known`, the keys that one may have; `described`, whether a file
    holds its configuration.
    """

    translate: Callable[[Config, float | None], Translation]
    place: Callable[[Mapping[str, np.ndarray], Any], Any]
    presets: Mapping[str, Config]
    known: Config
    described: bool


def merged(config: Config, changes: Config) -> dict[str, Any]:
    """The configuration with the changes, section by section."""
    together = dict(config)
    for key, value in changes.items():
        inner = together.get(key)
        together[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return together


def checked(config: Config, known: Config, strict: Collection[str] = ()) -> dict[str, Any]:
    """The part of `config` that decides what is computed, with lists as tuples.

    What `known` lacks is dropped: sections of sampling and evaluation, keys that speak of files. Within the sections
    `strict`, those of the network, it is an error.
    Errors: an unknown key of a strict section, with the closest; one number where there must be several.
    """
    kept = {}
    for key, value in config.items():
        inner = known.get(key)
        if isinstance(inner, Mapping):
            if key in strict:
                check_known(key, value, inner)
            kept[key] = checked(value, inner)
        elif key in known:
            if isinstance(inner, tuple) and not isinstance(value, list | tuple):
                raise ValueError(f"{key} = {value!r} is not accepted; {key} must be several numbers, as {inner} is.")
            kept[key] = tuple(value) if isinstance(value, (list, tuple)) else value
    return kept


def plain(config: Config, known: Config) -> dict[str, Any]:
    """Of numbers, words, lists and mappings alone, as JSON has them; NumPy's numbers and arrays become Python's.

    What is none of these, such as a device, is dropped if its key is not in `known`. Errors: it is.
    """
    kept = {}
    for key, value in config.items():
        inner = known.get(key)
        if isinstance(value, Mapping):
            kept[key] = plain(value, inner if isinstance(inner, Mapping) else {})
        elif _is_plain(value):
            kept[key] = _plain(value)
        elif key in known:
            raise ValueError(f"{key} = {value!r} is not accepted; {key} must be a number, a word or several of them.")
    return kept


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | bool | int | float | np.ndarray | np.generic)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def check_known(section: str, config: Config, known: Config) -> None:
    """Errors: a key of `config` that is not in `known`, with the closest."""
    for key in config:
        if key not in known:
            raise unknown_name(f"key of the published {section}", key, known)


def assignment(text: str, known: Config) -> dict[str, Any]:
    """`model.nf=64` as `{"model": {"nf": 64}}`; values are Python literals, anything else is a string.

    Errors: no `=`; a key that is not in `known`, with the closest.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"set = {text!r} is not accepted; accepted: KEY=VALUE, such as model.nf=64.")
    *above, last = name.split(".")
    for key in above:
        check_known("configuration", {key: None}, known)
        known = known[key] if isinstance(known[key], Mapping) else {}
    check_known(".".join(above) or "configuration", {last: None}, known)
    if isinstance(known[last], Mapping):
        raise ValueError(f"set = {text!r} is not accepted; {name} is a section, with keys {', '.join(known[last])}.")
    changes: dict[str, Any] = {last: literal(value)}
    for key in reversed(above):
        changes = {key: changes}
    return changes


def literal(text: str) -> Any:
    """A Python literal, or else the text."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
