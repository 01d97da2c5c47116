r"""Covariances $C = Q \Lambda Q^T$ as operators.

Diffusion, whitening and conditioning by isotropic noise need functions of $C$ only, $h(C) = Q\,h(\Lambda)\,Q^T$: the
precision $1/(\alpha^2\lambda + \sigma^2)$, the gain $\alpha\lambda/(\alpha^2\lambda + \sigma^2)$, the posterior variance
$\sigma^2\lambda/(\alpha^2\lambda + \sigma^2)$. So the decomposition is made once and holds for every time.
"""

import abc
from collections.abc import Callable
from typing import Self, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sdelab._checks import check_nonnegative, is_concrete
from sdelab.exact.base import as_floating

Function: TypeAlias = Callable[[Float[Array, "..."]], Float[Array, "..."]]
"""An elementwise function of the eigenvalues, which may add leading axes (one time per sample)."""


class AbstractCovariance(eqx.Module):
    r"""One covariance, or one per component, $(*c, d, d)$ as a matrix; vectors are $(\ldots, *c, d)$."""

    @abc.abstractmethod
    def matrix_shape(self) -> tuple[int, ...]:
        """Shape `(*c, d, d)` of the matrices that are represented."""

    @abc.abstractmethod
    def apply(self, function: Function, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """$h(C) y$, of the shape of `y`."""

    @abc.abstractmethod
    def quadratic(self, function: Function, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """$y^T h(C) y$, without the last axis."""

    @abc.abstractmethod
    def trace(self, function: Function) -> Float[Array, "..."]:
        r"""$\mathrm{tr}\,h(C)$; with the logarithm for $h$, the log-determinant."""

    @abc.abstractmethod
    def diagonal(self, function: Function) -> Float[Array, "..."]:
        """The diagonal of $h(C)$, with a last axis d."""

    @abc.abstractmethod
    def matrix(self, function: Function) -> Float[Array, "..."]:
        """$h(C)$ as matrices, with two last axes d."""

    @abc.abstractmethod
    def map(self, function: Function) -> Self:
        """$h(C)$ as an operator of the same kind."""

    @abc.abstractmethod
    def smallest(self) -> Float[Array, "..."]:
        """The smallest eigenvalue of each."""

    def take(self, index: Array) -> Self:
        """The covariances at `index` of the component axis."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def leading(self, axes: int, dtype: jnp.dtype) -> Self:
        """With `axes` axes of size one put before the others, to broadcast against a batch, in the dtype of the batch."""
        return jax.tree.map(lambda leaf: leaf.reshape((1,) * axes + leaf.shape).astype(dtype), self)


class Diagonal(AbstractCovariance):
    """A diagonal covariance; `variances` are `(*c, d)`, or `(*c, 1)` if they are equal; `dimension` is d."""

    variances: Float[Array, "..."]
    dimension: int = eqx.field(static=True)

    def matrix_shape(self) -> tuple[int, ...]:
        return self.variances.shape[:-1] + (self.dimension, self.dimension)

    def apply(self, function: Function, y: Float[Array, "..."]) -> Float[Array, "..."]:
        return function(self.variances) * y

    def quadratic(self, function: Function, y: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.sum(function(self.variances) * y**2, axis=-1)

    def trace(self, function: Function) -> Float[Array, "..."]:
        return jnp.sum(function(self.variances), axis=-1) * (self.dimension / self.variances.shape[-1])

    def diagonal(self, function: Function) -> Float[Array, "..."]:
        values = function(self.variances)
        return jnp.broadcast_to(values, values.shape[:-1] + (self.dimension,))

    def matrix(self, function: Function) -> Float[Array, "..."]:
        values = self.diagonal(function)
        eye = jnp.eye(self.dimension, dtype=values.dtype)
        return values[..., None] * eye.reshape((1,) * (values.ndim - 1) + eye.shape)

    def map(self, function: Function) -> Self:
        return eqx.tree_at(lambda c: c.variances, self, function(self.variances))

    def smallest(self) -> Float[Array, "..."]:
        return jnp.min(self.variances, axis=-1)


class Full(AbstractCovariance):
    r"""A covariance given as a matrix, `(*c, d, d)`, decomposed at construction (in float64 if it is concrete).

    Derivatives by the fields are right everywhere; a derivative by the matrix passes through `eigh`, and is right only
    where the eigenvalues are well apart (not at the identity).
    Fields: `vectors` $Q$, `(*c, d, d)`, one eigenvector a column; `variances` $\lambda$, `(*c, d)`.
    Errors: a matrix that is not symmetric, or has a negative eigenvalue.
    """

    vectors: Float[Array, "..."]
    variances: Float[Array, "..."]

    def __init__(self, matrix: ArrayLike):
        dtype = as_floating(matrix).dtype
        if is_concrete(matrix):
            variances, vectors = np.linalg.eigh(_checked_symmetric(np.asarray(matrix, np.float64)))
            _check_semidefinite(variances, dtype)
        else:
            variances, vectors = jnp.linalg.eigh(as_floating(matrix))
        self.vectors = jnp.asarray(vectors, dtype)
        self.variances = jnp.maximum(jnp.asarray(variances, dtype), 0.0)

    def matrix_shape(self) -> tuple[int, ...]:
        return self.vectors.shape

    def apply(self, function: Function, y: Float[Array, "..."]) -> Float[Array, "..."]:
        return from_basis(self.vectors, function(self.variances) * to_basis(self.vectors, y))

    def quadratic(self, function: Function, y: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.sum(function(self.variances) * to_basis(self.vectors, y) ** 2, axis=-1)

    def trace(self, function: Function) -> Float[Array, "..."]:
        return jnp.sum(function(self.variances), axis=-1)

    def diagonal(self, function: Function) -> Float[Array, "..."]:
        return jnp.sum(self.vectors**2 * function(self.variances)[..., None, :], axis=-1)

    def matrix(self, function: Function) -> Float[Array, "..."]:
        return outer(self.vectors, function(self.variances))

    def map(self, function: Function) -> Self:
        return eqx.tree_at(lambda c: c.variances, self, function(self.variances))

    def smallest(self) -> Float[Array, "..."]:
        return jnp.min(self.variances, axis=-1)


class LowRank(AbstractCovariance):
    r"""$C = U U^T + s^2 I$ with a factor $U$ of shape `(*c, d, r)` and a scale $s \ge 0$, `()` or `(*c,)`; costs $O(dr)$.

    With the thin decomposition $U = Q S R^T$: eigenvalues $S^2 + s^2$ on the columns of $Q$, and $s^2$ off them.
    Fields: `vectors` $Q$, `(*c, d, r)`; `variances` `(*c, r)`; `remainder` $s^2$, `(*c, 1)`.
    Errors: a factor that is not a matrix, a negative scale.
    """

    vectors: Float[Array, "..."]
    variances: Float[Array, "..."]
    remainder: Float[Array, "..."]

    def __init__(self, factor: ArrayLike, scale: ArrayLike):
        check_nonnegative(scale=scale)
        matrix = as_floating(factor)
        if matrix.ndim < 2:
            raise ValueError(f"factor has shape {matrix.shape}; accepted: (d, r), or (k, d, r) for k components.")
        if is_concrete(factor):
            vectors, singular, _ = np.linalg.svd(np.asarray(factor, np.float64), full_matrices=False)
        else:
            vectors, singular, _ = jnp.linalg.svd(matrix, full_matrices=False)
        self.vectors = jnp.asarray(vectors, matrix.dtype)
        scale = jnp.broadcast_to(as_floating(scale).astype(matrix.dtype), matrix.shape[:-2])[..., None]
        self.remainder = scale**2
        self.variances = jnp.asarray(singular, matrix.dtype) ** 2 + self.remainder

    def matrix_shape(self) -> tuple[int, ...]:
        return self.vectors.shape[:-1] + self.vectors.shape[-2:-1]

    def apply(self, function: Function, y: Float[Array, "..."]) -> Float[Array, "..."]:
        inside, rest = self._split(y)
        return from_basis(self.vectors, function(self.variances) * inside) + function(self.remainder) * rest

    def quadratic(self, function: Function, y: Float[Array, "..."]) -> Float[Array, "..."]:
        inside, rest = self._split(y)
        return jnp.sum(function(self.variances) * inside**2, -1) + jnp.sum(function(self.remainder) * rest**2, -1)

    def trace(self, function: Function) -> Float[Array, "..."]:
        size, rank = self.vectors.shape[-2:]
        return jnp.sum(function(self.variances), axis=-1) + (size - rank) * function(self.remainder)[..., 0]

    def diagonal(self, function: Function) -> Float[Array, "..."]:
        off = function(self.remainder)
        return off + jnp.sum(self.vectors**2 * (function(self.variances) - off)[..., None, :], axis=-1)

    def matrix(self, function: Function) -> Float[Array, "..."]:
        off = function(self.remainder)
        eye = jnp.eye(self.vectors.shape[-2], dtype=off.dtype)
        inside = outer(self.vectors, function(self.variances) - off)
        return inside + off[..., None] * eye.reshape((1,) * (inside.ndim - 2) + eye.shape)

    def map(self, function: Function) -> Self:
        values = function(self.variances), function(self.remainder)
        return eqx.tree_at(lambda c: (c.variances, c.remainder), self, values)

    def smallest(self) -> Float[Array, "..."]:
        off = self.vectors.shape[-2] > self.vectors.shape[-1]
        return self.remainder[..., 0] if off else jnp.min(self.variances, axis=-1)

    def _split(self, y: Float[Array, "..."]) -> tuple[Array, Array]:
        inside = to_basis(self.vectors, y)
        return inside, y - from_basis(self.vectors, inside)


def as_covariance(
    value: ArrayLike | AbstractCovariance, components: tuple[int, ...], dimension: int, dtype: jnp.dtype
) -> AbstractCovariance:
    """A covariance of shape `()`, `(*c,)`, `(*c, d)` or `(*c, d, d)`, or an operator, with `components` for `*c`."""
    matrices = components + (dimension, dimension)
    if isinstance(value, AbstractCovariance):
        if value.matrix_shape() != matrices:
            raise ValueError(f"covariance stands for matrices {value.matrix_shape()}; accepted: {matrices}.")
        return value
    shape = np.shape(value)
    if shape == matrices:
        return Full(value)
    variances = as_floating(value).astype(dtype)
    check_nonnegative(covariance=value)
    if shape == components + (dimension,):
        return Diagonal(variances, dimension)
    if shape in ((), components):
        return Diagonal(jnp.broadcast_to(variances, components)[..., None], dimension)
    accepted = dict.fromkeys(((), components, components + (dimension,), matrices))
    raise ValueError(f"covariance has shape {shape}; accepted: {', '.join(map(str, accepted))}.")


def log_normal(covariance: AbstractCovariance, residual: Array, variance: Function) -> Array:
    r"""$\log N(r; 0, h(C))$ with $h$ the function `variance` of the eigenvalues."""
    log_det = covariance.trace(lambda value: jnp.log(2 * jnp.pi * variance(value)))
    return -0.5 * (covariance.quadratic(lambda value: 1.0 / variance(value), residual) + log_det)


def check_density(covariance: AbstractCovariance) -> None:
    if not is_concrete(covariance):
        return
    with jax.ensure_compile_time_eval():  # under `jit` too, where the covariance is a constant
        smallest = float(jnp.min(covariance.smallest()))
    if not smallest > 0:
        raise ValueError(
            f"covariance has the eigenvalue {smallest}: a singular Gaussian has no density; accepted: eigenvalues > 0, "
            "or the density of the diffused distribution at some t > 0."
        )


def to_basis(vectors: Float[Array, "..."], y: Float[Array, "..."]) -> Array:
    """$Q^T y$, in full precision on accelerators too."""
    return jnp.einsum("...dr,...d->...r", vectors, y, precision=jax.lax.Precision.HIGHEST)


def from_basis(vectors: Float[Array, "..."], y: Float[Array, "..."]) -> Array:
    """$Q y$."""
    return jnp.einsum("...dr,...r->...d", vectors, y, precision=jax.lax.Precision.HIGHEST)


def outer(vectors: Float[Array, "..."], values: Float[Array, "..."]) -> Array:
    r"""$Q\,\mathrm{diag}(v)\,Q^T$."""
    return jnp.einsum(
        "...dr,...er->...de", vectors * values[..., None, :], vectors, precision=jax.lax.Precision.HIGHEST
    )


def _checked_symmetric(matrix: np.ndarray) -> np.ndarray:
    swapped = np.swapaxes(matrix, -1, -2)
    if not np.allclose(matrix, swapped, rtol=1e-5, atol=1e-6 * np.abs(matrix).max(initial=0.0)):
        raise ValueError(f"covariance is not symmetric: C - C^T reaches {np.abs(matrix - swapped).max()}.")
    return 0.5 * (matrix + swapped)


def _check_semidefinite(variances: np.ndarray, dtype: jnp.dtype) -> None:
    rounding = 100 * float(jnp.finfo(dtype).eps) * np.abs(variances).max(initial=0.0)
    if not np.all(variances >= -rounding):  # also false for NaN
        raise ValueError(f"covariance has the eigenvalue {variances.min()}; accepted: eigenvalues >= 0.")
