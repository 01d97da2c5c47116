import json
from typing import Any

import numpy as np

from sdelab.data.files import AbstractFiles

MANIFEST = "dataset.json"


def labels_of(
    files: AbstractFiles, names: tuple[str, ...], root: str = "", classes: tuple[str, ...] | None = None
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels `(n,)` int32 of the files `names` below `root`, and the names of the classes; None and () without classes.

    From `dataset.json` in `root`, `{"labels": [["name.png", 3], ...]}` with names relative to it, as the EDM data sets
    have it (https://github.com/NVlabs/edm); `{"labels": null}` says that there are none. Without the file, the first
    folder in `root` is the class, numbered in alphabetical order, or as in `classes`, the training set's.
    Errors: a manifest that does not have every name, or is not as said; a class that the training set does not have.
    """
    if root + MANIFEST in files.names:
        return _of_manifest(files, names, root)
    below = [name.removeprefix(root) for name in names]
    folders = [name.split("/")[0] if "/" in name else None for name in below]
    if None in folders:
        if any(folders):
            loose = names[folders.index(None)]
            raise ValueError(f"{files.path}: {loose} is in no class folder, and others are; accepted: all or none.")
        return None, ()
    known = classes or tuple(sorted({str(folder) for folder in folders}))
    numbers = {name: number for number, name in enumerate(known)}
    for folder in folders:
        if folder not in numbers:
            raise ValueError(f"{files.path}: {root}{folder} is no class of the training images: {', '.join(known)}.")
    return np.array([numbers[str(folder)] for folder in folders], np.int32), known


def _of_manifest(files: AbstractFiles, names: tuple[str, ...], root: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    where = f"{files.path}: {root}{MANIFEST}"
    try:
        entries = json.loads(files.read(root + MANIFEST)).get("labels")
        numbers: dict[str, Any] = dict(entries or {})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{where} is not accepted: {error}. Accepted: {{"labels": [["name.png", 3], ...]}}.'
        ) from error
    if not numbers:
        return None, ()
    labels = []
    for name in names:
        label = numbers.get(name.removeprefix(root))
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            raise ValueError(f"{where} has the label {label!r} for {name}; accepted: an integer >= 0 for every image.")
        labels.append(label)
    return np.array(labels, np.int32), tuple(str(number) for number in range(max(labels) + 1))
