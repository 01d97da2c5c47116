import dataclasses
import hashlib
from typing import Any

import numpy as np

from sdelab.data.samples import AbstractSamples


@dataclasses.dataclass(frozen=True, eq=False)
class SelectedSamples(AbstractSamples):
    """Some rows of an array that stays where it is, such as a mapped file.

    Fields: `array`, `(m, *event)`; `rows`, `(n,)` integers in [0, m).
    """

    array: np.ndarray
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.array[self.rows[rows]])

    def digest(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, len(self), 4096):
            digest.update(np.ascontiguousarray(self[start : start + 4096]).tobytes())
        return digest.hexdigest()
