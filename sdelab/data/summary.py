import dataclasses

import numpy as np

from sdelab.data.samples import Samples


@dataclasses.dataclass(frozen=True)
class Summary:
    """Range and moments of samples, over all their values. Fields: `low`, `high`, as stored; `mean`, `std`, `(channels,)`."""

    low: float
    high: float
    mean: np.ndarray
    std: np.ndarray


def summarise(samples: Samples, chunk: int = 1024) -> Summary:
    """Reads the samples once, `chunk` at a time; the last axis is the channels', or the coordinates'. Errors: no sample."""
    if not len(samples):
        raise ValueError("there are no samples to summarise; accepted: one or more.")
    axes = tuple(range(len(samples.shape) - 1))
    low, high = np.inf, -np.inf
    total = np.zeros(samples.shape[-1])
    shift = np.asarray(samples[:1], np.float64).mean(axes)  # sums of squares about a value of the set keep their digits
    squares = np.zeros_like(total)
    for start in range(0, len(samples), chunk):
        part = np.asarray(samples[start : start + chunk])
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        centred = part.astype(np.float64) - shift
        total, squares = total + centred.sum(axes), squares + (centred**2).sum(axes)
    count = np.prod(samples.shape[:-1])
    mean = total / count
    return Summary(low, high, shift + mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0)))
