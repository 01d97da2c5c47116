import dataclasses
import hashlib
from typing import Any

import numpy as np

from sdelab.data.samples import Samples, add_to_digest
from sdelab.data.scaling import AbstractScaling


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to train on and samples to judge by, as stored, with the scaling that models see them in.

    Fields: `name`; `train` and `held_out`, `(n, *event)`, images `(n, height, width, channels)` as integers, arrays or
    `AbstractSamples`; `train_labels` and `held_out_labels`, `(n,)` int32 in `[0, classes)`, or None with `classes` = 0; `scaling`;
    `preparation`, in words, what was done to stored images on the way, for records.
    The arrays are made read-only.
    """

    name: str
    train: Samples
    held_out: Samples
    scaling: AbstractScaling
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None
    classes: int = 0
    preparation: str = ""

    def __post_init__(self):
        if self.train.shape[1:] != self.held_out.shape[1:]:
            raise ValueError(
                f"held_out has events of shape {self.held_out.shape[1:]}; accepted: that of train, {self.event_shape}."
            )
        _check_labels("train_labels", self.train_labels, len(self.train), self.classes)
        _check_labels("held_out_labels", self.held_out_labels, len(self.held_out), self.classes)
        for samples in self._parts():
            if isinstance(samples, np.ndarray):
                samples.setflags(write=False)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train.shape[1:]

    @property
    def levels(self) -> int | None:
        """Number of grey levels; None for points of a continuum."""
        return self.scaling.levels

    def encode(self, values: Samples) -> np.ndarray:
        """Stored values in model units, float32."""
        return self.scaling.encode(np.asarray(values))

    def decode(self, x: Any) -> np.ndarray:
        """Model units as stored values, the inverse of `encode`."""
        return self.scaling.decode(x)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that a model could learn from: samples and labels with shape and dtype, and the scaling."""
        digest = hashlib.sha256(f"{self.name} {self.classes} {self.scaling!r}".encode())
        for samples in self._parts():
            add_to_digest(digest, samples)
        return digest.hexdigest()

    def _parts(self) -> list[Samples]:
        parts = [self.train, self.held_out, self.train_labels, self.held_out_labels]
        return [part for part in parts if part is not None]


def _check_labels(name: str, labels: np.ndarray | None, count: int, classes: int) -> None:
    if (labels is None) != (classes == 0):
        raise ValueError(f"classes = {classes} with {name} = {labels}; accepted: both labels and classes, or neither.")
    if labels is None:
        return
    outside = labels.size > 0 and (labels.min() < 0 or labels.max() >= classes)
    if labels.shape != (count,) or labels.dtype != np.int32 or outside:
        raise ValueError(
            f"{name} of shape {labels.shape} and dtype {labels.dtype} is not accepted; accepted: int32 of shape "
            f"({count},) in [0, {classes - 1}]."
        )
