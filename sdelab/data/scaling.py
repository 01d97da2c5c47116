"""From stored values to what a network sees, and back."""

import abc
import dataclasses
import math
from typing import Any

import numpy as np


class AbstractScaling(abc.ABC):
    """An invertible map between stored values and model units."""

    @property
    @abc.abstractmethod
    def levels(self) -> int | None:
        """Number of grey levels of the stored values; None for points of a continuum."""

    @abc.abstractmethod
    def encode(self, values: np.ndarray) -> np.ndarray:
        """Stored values in model units, float32."""

    @abc.abstractmethod
    def decode(self, x: Any) -> np.ndarray:
        """Model units as stored values: the inverse of `encode`, and defined for every finite `x`."""


@dataclasses.dataclass(frozen=True)
class GreyLevels(AbstractScaling):
    r"""Integers $0 \dots L - 1$ as the centres of $L$ equal bins of [low, high]: $x = low + (u + \tfrac12) w$, $w = (high - low)/L$.

    The bins are those of uniform dequantisation, $low + (u + U) w$ with $U \sim U(0, 1)$, so that a model trained on
    the centres and a likelihood of dequantised images speak of one scale; bits/dim have the offset $-\log_2 w$,
    $\log_2(L/2)$ on [-1, 1].

    Published codes put black on -1 and white on 1, $u/127.5 - 1$: their bins end half a bin further out, which is
    [-256/255, 256/255] here; for 0 and 1 it is [-1/510, 511/510].

    Fields: `count` = L >= 2, grey levels; `low` < `high`, in model units.
    """

    count: int
    low: float | int = -1.0
    high: float | int = 1.0

    def __post_init__(self):
        for name in ("low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 0 and 0.0 are one scaling, with one record
        if self.count < 2:
            raise ValueError(f"count = {self.count} is not accepted; count must be an integer >= 2.")
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be less than high = {self.high}.")

    @property
    def levels(self) -> int:
        return self.count

    @property
    def bin_width(self) -> float:
        """$w$, in model units."""
        return (self.high - self.low) / self.count

    @property
    def offset_bits(self) -> float:
        r"""$-\log_2 w$: added to $-\log_2 p(x)/d$ of dequantised `x` in model units, it gives bits/dim of the integers."""
        return -math.log2(self.bin_width)

    def encode(self, values: np.ndarray) -> np.ndarray:
        self._check(values)
        return (self.low + (np.asarray(values, np.float64) + 0.5) * self.bin_width).astype(np.float32)

    def dequantise(self, values: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """The point of each value's bin that `uniform`, in [0, 1), names; float32, of the shape of `values`."""
        self._check(values)
        points = np.asarray(values, np.float64) + np.asarray(uniform, np.float64)
        return (self.low + points * self.bin_width).astype(np.float32)

    def decode(self, x: Any) -> np.ndarray:
        index = np.floor((np.asarray(x, np.float64) - self.low) / self.bin_width)
        return np.clip(index, 0, self.count - 1).astype(np.uint8 if self.count <= 256 else np.int64)

    def _check(self, values: np.ndarray) -> None:
        values = np.asarray(values)
        if values.dtype.kind not in "iu" or (values.size and not 0 <= values.min() <= values.max() < self.count):
            raise ValueError(
                f"values of dtype {values.dtype} in [{values.min()}, {values.max()}] are not accepted; accepted: "
                f"integers in [0, {self.count - 1}]."
            )


@dataclasses.dataclass(frozen=True)
class Unscaled(AbstractScaling):
    """Points of a continuum, already in model units."""

    @property
    def levels(self) -> None:
        return None

    def encode(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values, np.float32)

    def decode(self, x: Any) -> np.ndarray:
        return np.asarray(x, np.float32)


SCALINGS = {"GreyLevels": GreyLevels, "Unscaled": Unscaled}
"""By the names that a run's record has for them."""
