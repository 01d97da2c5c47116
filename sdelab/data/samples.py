import abc
from typing import Any, TypeAlias

import numpy as np


class AbstractSamples(abc.ABC):
    """Samples that are made when they are asked for, with the face of an array `(n, *event)`: sets beyond memory.

    Rows are picked as in NumPy along the first axis: by a number, a slice, numbers or a mask. Threads may read at a time.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """`(n, *event)`."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values."""

    @abc.abstractmethod
    def read(self, rows: np.ndarray) -> np.ndarray:
        """The samples of rows `(k,)`, shape `(k, *event)`. Errors: a sample that cannot be read, by its name."""

    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256 of what the samples are made from, and how."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(len(self))[index]
        return self.read(rows) if rows.ndim else self.read(rows[None])[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them."""
        if copy is False:
            raise ValueError("copy = False is not accepted: the samples are made, there is nothing to share.")
        return np.asarray(self[:], dtype)


Samples: TypeAlias = np.ndarray | AbstractSamples
"""What a data set holds: an array, or the like of one."""


def add_to_digest(digest: Any, samples: Samples) -> None:
    """Feeds a hash of `hashlib` with the samples, and their shape and dtype."""
    digest.update(f" {samples.dtype.str} {samples.shape} ".encode())
    if isinstance(samples, AbstractSamples):
        digest.update(samples.digest().encode())
        return
    for start in range(0, len(samples), 4096):  # a mapped file need not fit into memory
        digest.update(np.ascontiguousarray(samples[start : start + 4096]).tobytes())
