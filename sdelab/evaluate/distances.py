"""Distances between two sets of samples, on the host in float64: the sets are finite, the arithmetic is exact."""

import jax
import numpy as np
from jaxtyping import Array, Float

from sdelab._checks import check_count
from sdelab._typing import PRNGKey

Samples = Float[Array, "..."] | Float[np.ndarray, "..."]
"""`(count, *event)`."""


def sliced_wasserstein(key: PRNGKey, x: Samples, y: Samples, projections: int = 256) -> float:
    r"""Sliced 2-Wasserstein distance, $\big(\frac1P \sum_p W_2^2(\theta_p^T x, \theta_p^T y)\big)^{1/2}$, $\theta_p$ on the unit sphere.

    In one dimension $W_2^2 = \int_0^1 (F^{-1} - G^{-1})^2$, exact for sets of any two sizes. It has the units of the
    data; a shift by $v$ gives $\lVert v \rVert/\sqrt d$ in expectation.
    Bonneel et al. (2015), https://doi.org/10.1007/s10851-014-0506-3.

    Errors: events of different shapes, empty or non-finite sets, `projections` < 1.
    """
    check_count(projections=projections)
    x, y = _flatten(x, y)
    theta = np.asarray(jax.random.normal(key, (x.shape[1], projections)), np.float64)
    theta /= np.linalg.norm(theta, axis=0)
    row_x, row_y, weight = _common_quantiles(len(x), len(y))
    gaps = np.sort(x @ theta, axis=0)[row_x] - np.sort(y @ theta, axis=0)[row_y]
    return float(np.sqrt(np.mean(weight @ gaps**2)))


def energy_distance(x: Samples, y: Samples) -> float:
    r"""Squared energy distance $2 E\lVert X - Y \rVert - E\lVert X - X' \rVert - E\lVert Y - Y' \rVert \ge 0$.

    Each expectation is over all pairs, a point with itself included (the V-statistic): the distance of a set to
    itself is 0, and that of two samples of one distribution is biased upwards by order 1/count.
    Székely and Rizzo (2013), eq. 1.1 and 6.1, https://doi.org/10.1016/j.jspi.2013.03.018.

    Errors: events of different shapes, empty or non-finite sets.
    """
    x, y = _flatten(x, y)
    return 2.0 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)


def _common_quantiles(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intervals of probability on which both quantile functions are constant: their rows, and their weights."""
    levels = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)  # in units of 1 / (n m): integers, no rounding
    start, weight = levels[:-1], np.diff(levels) / (n * m)
    return start // m, start // n, weight


def _mean_distance(x: np.ndarray, y: np.ndarray, chunk: int = 1024) -> float:
    squares = np.sum(y**2, axis=1)
    total = 0.0
    for block in (x[i : i + chunk] for i in range(0, len(x), chunk)):
        square = np.sum(block**2, axis=1)[:, None] + squares - 2.0 * block @ y.T
        total += float(np.sum(np.sqrt(np.maximum(square, 0.0))))
    return total / (len(x) * len(y))


def _flatten(x: Samples, y: Samples) -> tuple[np.ndarray, np.ndarray]:
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"x has events of shape {x.shape[1:]} and y of shape {y.shape[1:]}; they must be the same.")
    flat = []
    for name, value in (("x", x), ("y", y)):
        array = np.asarray(value, np.float64)
        if not array.size or not np.all(np.isfinite(array)):
            raise ValueError(
                f"{name} of shape {value.shape} is not accepted; it must hold finite samples, one at least."
            )
        flat.append(array.reshape(len(array), -1))
    return flat[0], flat[1]
