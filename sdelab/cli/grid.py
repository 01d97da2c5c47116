"""A grid of overrides, `KEY=V1,V2` for each axis, as runs with names."""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from sdelab.cli.config_file import NAMED, PREFIX
from sdelab.cli.usage import UsageError

LONGEST = 200
"""Characters of a run's name: a file system has room for 255."""


@dataclasses.dataclass(frozen=True)
class Combination:
    """One point of a grid. Fields: `name`, a folder's; `overrides`, as on a command line, `--config.KEY=VALUE`."""

    name: str
    overrides: tuple[str, ...]


def parse_axes(words: Sequence[str]) -> dict[str, list[str]]:
    """`["optim.b1=0.9,0.95"]` as `{"optim.b1": ["0.9", "0.95"]}`. A comma within brackets belongs to the value, as in `(1,2),(1,2,2)`.

    The name of a section that has a `name` stands for it: `sde=VP,VE` is `sde.name=VP,VE`.
    Errors: no key or no value; a key that comes twice; a value that comes twice.
    """
    axes: dict[str, list[str]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        listed = _split(values)
        if not (key and equals and all(listed)):
            raise UsageError(
                f"--grid={word} is not accepted; accepted: KEY=VALUE,VALUE, as optim.learning_rate=1e-4,2e-4."
            )
        key = f"{key}.name" if key in (*NAMED, "loss") else key
        if key in axes:
            raise UsageError(f"--grid={word}: {key} comes twice; accepted: one --grid with all of its values.")
        twice = [value for value, count in Counter(listed).items() if count > 1]
        if twice:
            raise UsageError(f"--grid={word}: the value {twice[0]} comes twice.")
        axes[key] = listed
    return axes


def combinations(axes: Mapping[str, Sequence[str]]) -> list[Combination]:
    """All of them, the last axis running fastest, each by the name `KEY=VALUE,KEY=VALUE`.

    A key is shortened to its last word where that tells it from the others. Errors: a name that is too long for a folder;
    two with one name.
    """
    shown = _short(list(axes))
    made = []
    for values in itertools.product(*axes.values()):
        name = ",".join(f"{shown[key]}={_plain(value)}" for key, value in zip(axes, values, strict=True))
        if len(name) > LONGEST:
            raise UsageError(
                f"the run {name} has a name of {len(name)} characters; accepted: {LONGEST}. Use fewer axes."
            )
        overrides = tuple(f"{PREFIX}{key}={value}" for key, value in zip(axes, values, strict=True))
        made.append(Combination(name, overrides))
    for name, count in Counter(one.name for one in made).items():
        if count > 1:
            raise UsageError(
                f"{count} runs of the grid have the name {name}: their values differ in signs that a name lacks."
            )
    return made


def _split(values: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [""], 0
    for character in values:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _short(keys: Sequence[str]) -> dict[str, str]:
    last = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: word if counts[word] == 1 else key for key, word in last.items()}


def _plain(value: str) -> str:
    """A value in letters that a shell leaves alone."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", value).strip("-")
