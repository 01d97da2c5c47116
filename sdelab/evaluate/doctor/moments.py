"""The scales of a data set, in model units: measured on samples, or bounded by what is known without them."""

import dataclasses
import math

import numpy as np

from sdelab._checks import check_count
from sdelab.data import AbstractScaling, Dataset, GreyLevels

_CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    r"""What the scales of a process are held against.

    Fields: `dims` d of a sample; `samples` that were looked at, 0 if what stands here are upper bounds; `low`, `high`, the
    ends of the values; `mean`, of all values; `mean_norm` $\lVert E x_0 \rVert$; `spectrum`, the eigenvalues of the
    covariance that are not 0; `mean_square` $E\lVert x_0 \rVert^2/d$; `diameter`, the largest distance of two samples; `grain`,
    the standard deviation within a grey level, 0 for a continuum.
    """

    dims: int
    samples: int
    low: float
    high: float
    mean: float
    mean_norm: float
    spectrum: np.ndarray
    mean_square: float
    diameter: float
    grain: float = 0.0

    @property
    def std(self) -> float:
        """Of a value about the mean of its place, averaged over places; the root mean square where nothing is measured."""
        return math.sqrt(float(np.sum(self.spectrum)) / self.dims) if self.samples else math.sqrt(self.mean_square)


def measured(dataset: Dataset, count: int = 2000, seed: int = 0) -> Moments:
    """The moments of `count` training samples picked by `seed`, or of all if there are no more. Costs count² d operations.

    Errors: `count` < 2.
    """
    check_count(count=count)
    if count < 2:
        raise ValueError(f"count = {count} is not accepted; count must be an integer >= 2.")
    total = len(dataset.train)
    rows = np.arange(total)
    if count < total:
        rows = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    x = dataset.encode(dataset.train[rows]).astype(np.float64).reshape(len(rows), -1)
    mean = np.mean(x, axis=0)
    return Moments(
        dims=x.shape[1],
        samples=len(x),
        low=float(x.min()),
        high=float(x.max()),
        mean=float(mean.mean()),
        mean_norm=float(np.linalg.norm(mean)),
        spectrum=_spectrum(x - mean),
        mean_square=float(np.mean(x**2)),
        diameter=_diameter(x - mean),
        grain=_grain(dataset.scaling),
    )


def bounded(dataset: Dataset) -> Moments:
    """Upper bounds for images in grey levels, from the ends of their scaling alone: the data set may be a declared one.

    Errors: data of another scaling.
    """
    scaling, dims = dataset.scaling, math.prod(dataset.event_shape)
    if not isinstance(scaling, GreyLevels):
        raise ValueError(f"{dataset.name} has no scale before it is read; accepted: images in grey levels.")
    return Moments(
        dims=dims,
        samples=0,
        low=scaling.low,
        high=scaling.high,
        mean=0.5 * (scaling.low + scaling.high),
        mean_norm=0.0,
        spectrum=np.zeros(0),
        mean_square=max(scaling.low**2, scaling.high**2),
        diameter=math.sqrt(dims) * (scaling.high - scaling.low),
        grain=_grain(scaling),
    )


def _grain(scaling: AbstractScaling) -> float:
    r"""$w/\sqrt{12}$ of a bin of width $w$."""
    return scaling.bin_width / math.sqrt(12.0) if isinstance(scaling, GreyLevels) else 0.0


def _spectrum(centred: np.ndarray) -> np.ndarray:
    """Of the covariance $X^T X/n$, or of $X X^T/n$, which has the same and may be smaller."""
    n, dims = centred.shape
    gram = (centred @ centred.T if n < dims else centred.T @ centred) / n
    return np.maximum(np.linalg.eigvalsh(gram), 0.0)


def _diameter(x: np.ndarray) -> float:
    squares, largest = np.sum(x**2, axis=1), 0.0
    for start in range(0, len(x), _CHUNK):
        block = slice(start, start + _CHUNK)
        largest = max(largest, float(np.max(squares[block, None] + squares - 2.0 * x[block] @ x.T)))
    return math.sqrt(largest)
