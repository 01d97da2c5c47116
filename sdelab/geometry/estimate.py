r"""The Gaussian of a data set: mean and covariance by maximum likelihood, that is, with $1/n$.

Computed in float64 on the host, and kept in the precision of the data. Which covariance is a matter of how many samples
there are, and of what $d \times d$ numbers cost.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab._checks import check_count, check_finite, is_concrete
from sdelab.exact.covariance import Full, LowRank
from sdelab.exact.gaussian import Gaussian

Data = Float[Array, "n ..."] | Float[np.ndarray, "n ..."]


def full_gaussian(x: Data) -> Gaussian:
    """Mean and full covariance of samples `(n, *event)`. Errors: fewer than d + 1 samples, of which it would be singular."""
    flat, mean, dtype = _centred(x, "full_gaussian")
    count, size = flat.shape
    _check_samples(
        "full_gaussian", count, size + 1, f"a full covariance in {size} dimensions; low_rank_gaussian takes fewer"
    )
    return Gaussian(mean, Full(jnp.asarray(flat.T @ flat / count, dtype)))


def diagonal_gaussian(x: Data) -> Gaussian:
    """Mean and variances of the coordinates of samples `(n, *event)`. Errors: fewer than two samples."""
    flat, mean, dtype = _centred(x, "diagonal_gaussian")
    _check_samples("diagonal_gaussian", len(flat), 2, "a variance")
    return Gaussian(mean, jnp.asarray(np.mean(flat**2, axis=0), dtype))


def low_rank_gaussian(x: Data, rank: int) -> Gaussian:
    r"""Mean, the leading `rank` principal components and an isotropic remainder: probabilistic principal component analysis.

    With the eigenvalues $\lambda_1 \ge \lambda_2 \ge \dots$ of the covariance of the data, from a singular value
    decomposition that never forms it, $C = U_q (\Lambda_q - s^2 I) U_q^T + s^2 I$ with $s^2 = \frac{1}{d-q}\sum_{j>q}\lambda_j$,
    the maximum of the likelihood. Tipping and Bishop (1999), section 3.2, https://doi.org/10.1111/1467-9868.00196.

    `x`: samples `(n, *event)`; `rank` q in [1, d - 1]. Errors: a rank outside; fewer than q + 2 samples, of which nothing
    remains.
    """
    check_count(rank=rank)
    flat, mean, dtype = _centred(x, "low_rank_gaussian")
    count, size = flat.shape
    if rank >= size:
        raise ValueError(
            f"rank = {rank} is not accepted in {size} dimensions; accepted: 1 to {size - 1}, or full_gaussian(x)."
        )
    _check_samples("low_rank_gaussian", count, rank + 2, f"rank {rank} and a remainder")
    triangle = np.linalg.qr(flat, mode="r")  # has the singular values and right vectors of the data, and at most d rows
    _, singular, vectors = np.linalg.svd(triangle, full_matrices=False)
    variances = singular**2 / count
    remainder = np.sum(variances[rank:]) / (size - rank)
    factor = vectors[:rank].T * np.sqrt(variances[:rank] - remainder)
    return Gaussian(mean, LowRank(jnp.asarray(factor, dtype), jnp.asarray(np.sqrt(remainder), dtype)))


def _centred(x: Data, user: str) -> tuple[np.ndarray, Array, jnp.dtype]:
    """Deviations from the mean as `(n, d)` in float64, the mean, and the precision of the data."""
    if not is_concrete(x):
        raise TypeError(f"x is traced; {user} works on the host: estimate outside of jit, and pass the Gaussian.")
    dtype = jnp.dtype(jax.dtypes.canonicalize_dtype(np.asarray(x).dtype))
    values = np.asarray(x, np.float64)
    if values.ndim < 2 or values.size == 0:
        raise ValueError(f"x has shape {values.shape}; accepted: samples (n, *event).")
    check_finite(x=values)
    mean = np.mean(values, axis=0)
    return (values - mean[None]).reshape(len(values), -1), jnp.asarray(mean, dtype), dtype


def _check_samples(user: str, count: int, needed: int, purpose: str) -> None:
    if count < needed:
        raise ValueError(f"x has {count} samples; {user} needs at least {needed}, for {purpose}.")
