"""What a run says about itself, beside its arrays: configuration, data, versions."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdelab import __version__
from sdelab.data import Dataset
from sdelab.data.scaling import AbstractScaling

RESTARTABLE = ("run",)
"""Sections of a configuration in which a resumed run may differ: they do not change the numbers."""

PACKAGES = ("diffrax", "equinox", "flax", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint")
"""Those whose versions a run records."""


class CheckpointMismatch(ValueError):
    """The workdir holds another run; its files are left alone."""


def describe(config: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The record of a run on that data set."""
    return record_of(config, dataset.fingerprint, dataset.event_shape, dataset.scaling, preparation=dataset.preparation)


def record_of(
    config: Mapping[str, Any],
    fingerprint: str | None,
    event_shape: tuple[int, ...],
    scaling: AbstractScaling,
    *,
    preparation: str = "",
) -> dict[str, Any]:
    """The record of a run, in JSON's types: what a checkpoint must share with the run that restores it, and versions.

    The scaling of the data is there so that samples can be decoded without them. `fingerprint` is the data set's, None
    for a run that was made without one; `preparation`, what was done to its images, in words.
    """
    numbers = {name: value for name, value in vars(scaling).items() if isinstance(value, (int, float))}
    record = {
        "config": config,
        "data": {"sha256": fingerprint, "event_shape": event_shape, "preparation": preparation},
        "scaling": {"name": type(scaling).__name__, **numbers},
        "versions": versions(),
    }
    return canonical(record)


def canonical(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree as it comes back from a file, in JSON's types."""
    return json.loads(json.dumps(tree, default=dict))


def versions() -> dict[str, str]:
    """Of Python, sdelab and the packages that a run's numbers depend on."""
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"sdelab": __version__, "python": platform.python_version(), **installed}


def check_same_run(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Errors: `CheckpointMismatch`, which lists the keys in which the two records differ, with both values."""
    lines = differences(_identity(found), _identity(expected), "in the run")
    if lines:
        raise CheckpointMismatch(
            "the workdir holds another run; use another workdir, or the same configuration:\n" + "\n".join(lines)
        )


def differences(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> list[str]:
    """A line for every key, dots and all, in which two nested records differ, with the value `where` it is, and now."""
    theirs, ours = flatten(found), flatten(expected)
    differing = [key for key in sorted(theirs | ours) if theirs.get(key) != ours.get(key)]
    return [f"  {key}: {theirs.get(key)!r} {where}, {ours.get(key)!r} now" for key in differing]


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that the file is the old one or the new one, never a part. Errors: a number that is not finite."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text so that the file is the old one or the new one, never a part."""
    part = path.with_suffix(".part")
    part.write_text(text)
    os.replace(part, path)


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    config = {name: section for name, section in record["config"].items() if name not in RESTARTABLE}
    return {"config": config, "data": record["data"]}


def flatten(tree: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, by dotted keys; lists are leaves."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{path}.{key}" if path else str(key))
    return leaves
