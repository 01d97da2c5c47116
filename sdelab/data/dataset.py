import dataclasses
import hashlib
from typing import Any

import numpy as np

from sdelab.data.scaling import AbstractScaling


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to train on and samples to judge by, as stored, with the scaling that models see them in.

    Fields: `name`; `train` and `held_out`, `(n, *event)`, images `(n, height, width, channels)` as integers;
    `train_labels` and `held_out_labels`, `(n,)` int32 in `[0, classes)`, or None with `classes` = 0; `scaling`.
    The arrays are made read-only.
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray
    scaling: AbstractScaling
    train_labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None
    classes: int = 0

    def __post_init__(self):
        if self.train.shape[1:] != self.held_out.shape[1:]:
            raise ValueError(
                f"held_out has events of shape {self.held_out.shape[1:]}; accepted: that of train, {self.event_shape}."
            )
        _check_labels("train_labels", self.train_labels, len(self.train), self.classes)
        _check_labels("held_out_labels", self.held_out_labels, len(self.held_out), self.classes)
        for array in self._arrays():
            array.setflags(write=False)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.train.shape[1:]

    @property
    def levels(self) -> int | None:
        """Number of grey levels; None for points of a continuum."""
        return self.scaling.levels

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Stored values in model units, float32."""
        return self.scaling.encode(values)

    def decode(self, x: Any) -> np.ndarray:
        """Model units as stored values, the inverse of `encode`."""
        return self.scaling.decode(x)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that a model could learn from: arrays with shape and dtype, and the scaling."""
        digest = hashlib.sha256(f"{self.name} {self.classes} {self.scaling!r}".encode())
        for array in self._arrays():
            digest.update(f" {array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _arrays(self) -> list[np.ndarray]:
        arrays = [self.train, self.held_out, self.train_labels, self.held_out_labels]
        return [array for array in arrays if array is not None]


def _check_labels(name: str, labels: np.ndarray | None, count: int, classes: int) -> None:
    if (labels is None) != (classes == 0):
        raise ValueError(f"classes = {classes} with {name} = {labels}; accepted: both labels and classes, or neither.")
    if labels is None:
        return
    if labels.shape != (count,) or labels.dtype != np.int32 or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{name} of shape {labels.shape} and dtype {labels.dtype} is not accepted; accepted: int32 of shape "
            f"({count},) in [0, {classes - 1}]."
        )
