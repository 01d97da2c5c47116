"""Data sets by what is known of them before they are read: for whoever needs shapes, labels and scaling, and no samples."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.registry import LOADERS
from sdelab.data.samples import AbstractSamples
from sdelab.data.scaling import GreyLevels

UNCOUNTED = 2**20
"""So many samples are declared where only the files tell how many there are: more than a batch has."""

PUBLISHED = {
    "cifar10": ((32, 32, 3), (50_000, 10_000), 10),
    "cifar10_jpeg": ((32, 32, 3), (50_000, 10_000), 10),
    "mnist": ((28, 28, 1), (60_000, 10_000), 10),
    "mnist32": ((32, 32, 1), (60_000, 10_000), 10),
}
"""Shape of an image, how many are there to train on and held out, and the number of classes."""

SIZED = {"hugging_face": "dataset", "images": "path", "tfds": "dataset"}
"""Sets of images whose config says their size, and the key of the config that says where they are."""


@dataclasses.dataclass(frozen=True, eq=False)
class DeclaredSamples(AbstractSamples):
    """Images of 8 bits of which there is only the shape.

    Fields: `count`; `event_shape` of one; `name` of the set, for messages.
    """

    count: int
    event_shape: tuple[int, ...]
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *self.event_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def read(self, rows: np.ndarray) -> np.ndarray:
        raise RuntimeError(f"the data set {self.name} was declared and not read: it has a shape, and no samples.")

    def digest(self) -> str:
        raise RuntimeError(f"the data set {self.name} was declared and not read: it has no fingerprint.")


def _declared(kind: str, loader: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """Takes what the loader takes, and the number of `classes` for a set that has as many as its files say."""

    @functools.wraps(loader)
    def declare(*, classes: int, **settings: Any) -> Dataset:
        if kind not in PUBLISHED and kind not in SIZED:
            return loader(**settings)
        bound = inspect.signature(loader).bind(**settings)
        bound.apply_defaults()
        given, name, counts = bound.arguments, kind, (UNCOUNTED, UNCOUNTED)
        if kind in PUBLISHED:
            event_shape, counts, classes = PUBLISHED[kind]
        else:
            name = Path(given[SIZED[kind]]).name.split(".")[0]
            event_shape = (given["size"], given["size"], given["channels"])
        samples = [DeclaredSamples(count, event_shape, name) for count in counts]
        labels = [np.zeros(count, np.int32) if classes else None for count in counts]
        return Dataset(name, *samples, GreyLevels(256, given["low"], given["high"]), *labels, classes=classes)

    return declare


DECLARED: dict[str, Callable[..., Dataset]] = {kind: _declared(kind, loader) for kind, loader in LOADERS.items()}
"""By the names of `LOADERS`, and with their keys: the data set that the loader would read, with `DeclaredSamples`.

Sets that need no files are made, and `arrays`, of which nothing is known but what their file says, are read.
"""
