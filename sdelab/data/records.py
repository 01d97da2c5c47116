"""Data sets of other libraries: records with an encoded image and a label."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.files import AbstractFiles
from sdelab.data.images import AbstractFit, ImageFiles
from sdelab.data.images.loading import kept, preparation
from sdelab.data.scaling import AbstractScaling, GreyLevels


class RecordFiles(AbstractFiles):
    """The images of records, each by the number of its record.

    `source[i]` is a mapping whose entry `image` is an encoded image: its bytes, or a mapping with `bytes` or with the
    `path` of a file. `origin` says where they come from.
    """

    def __init__(self, origin: str, source: Any, image: str):
        self.path = Path(origin)
        self._source, self._image = source, image

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{row:08}" for row in range(len(self._source)))

    def read(self, name: str) -> bytes:
        record = self._source[int(name)]
        if self._image not in record:
            raise ValueError(f"{self.path}: records have {', '.join(record)}, and no {self._image!r}.")
        value = record[self._image]
        if isinstance(value, Mapping):
            value = value["bytes"] if value.get("bytes") else Path(value["path"]).read_bytes()
        if not isinstance(value, bytes):
            raise ValueError(
                f"{self.path}: {self._image} of record {name} is a {type(value).__name__}; accepted: an encoded image, "
                "as bytes."
            )
        return value


def load_records(
    name: str,
    train: RecordFiles,
    held_out: RecordFiles,
    fit: AbstractFit,
    *,
    labels: tuple[Sequence[int], Sequence[int]] | None = None,
    channels: int = 3,
    scaling: AbstractScaling = GreyLevels(256),
    memory: float | int = 2.0,
) -> Dataset:
    """Images of records, decoded and fitted as those of files; see `load_images`. `labels` of both parts, or None."""
    parts = [kept(ImageFiles(files, files.names, fit, channels), memory) for files in (train, held_out)]
    train_labels, held_labels = [np.asarray(part, np.int32) for part in labels] if labels else (None, None)
    return Dataset(
        name=name,
        train=parts[0],
        held_out=parts[1],
        scaling=scaling,
        train_labels=train_labels,
        held_out_labels=held_labels,
        classes=1 + max(max(part) for part in labels) if labels else 0,
        preparation=preparation(fit, channels),
    )
