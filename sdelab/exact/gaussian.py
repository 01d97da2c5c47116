from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from sdelab._checks import check_count, check_finite
from sdelab._compile import jit
from sdelab._typing import PRNGKey, State, Time
from sdelab.exact.base import (
    AbstractDensity,
    AbstractExactScore,
    as_floating,
    check_unconditional,
    flatten_event,
    kernel_at,
    scalar_kernel_at,
)
from sdelab.exact.covariance import AbstractCovariance, as_covariance, check_density, log_normal
from sdelab.sde import AbstractAffineSDE


class Gaussian(AbstractDensity):
    r"""The Gaussian $N(m, C)$, diffused into $N(\alpha m, \alpha^2 C + \sigma^2 I)$.

    `mean` has the shape `(*event)`, d numbers in all; `covariance` is `()`, `(d,)` or `(d, d)`, or an operator such as
    `LowRank(factor, scale)` for $U U^T + s^2 I$. Coordinates are those of the event flattened in C order. A full
    covariance is decomposed once, here. It may be singular: then there is no density at t = 0.
    Errors: a covariance of another shape, not symmetric, or with a negative eigenvalue.
    """

    mean: Float[Array, "..."]
    covariance: AbstractCovariance

    def __init__(self, mean: ArrayLike, covariance: ArrayLike | AbstractCovariance):
        self.mean = as_floating(mean)
        self.covariance = as_covariance(covariance, (), self.mean.size, self.mean.dtype)

    def __check_init__(self):
        check_finite(mean=self.mean)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def sample(self, key: PRNGKey, n: int) -> State:
        check_count(n=n)
        return _sample(self, key, int(n))

    def log_prob(self, x: State) -> Float[Array, "..."]:
        check_density(self.covariance)
        return _log_prob(self, flatten_event(x, self.event_shape))

    def diffused(self, sde: AbstractAffineSDE, t: Time) -> "Gaussian":
        alpha, sigma = scalar_kernel_at(sde, t, self.mean.dtype)
        return Gaussian(alpha * self.mean, self.covariance.map(lambda value: alpha**2 * value + sigma**2))

    def score(self, sde: AbstractAffineSDE) -> "GaussianScore":
        return GaussianScore(sde, self.mean, self.covariance)


@jit
def _sample(gaussian: Gaussian, key: PRNGKey, n: int) -> State:
    z = jax.random.normal(key, (n, gaussian.mean.size), gaussian.mean.dtype)
    covariance = gaussian.covariance.leading(1, z.dtype)
    return gaussian.mean[None] + covariance.apply(jnp.sqrt, z).reshape(n, *gaussian.event_shape)


@jit
def _log_prob(gaussian: Gaussian, flat: Float[Array, "..."]) -> Float[Array, "..."]:
    residual = flat - _lead(gaussian.mean, flat)
    return log_normal(gaussian.covariance.leading(flat.ndim - 1, flat.dtype), residual, lambda value: value)


class GaussianScore(AbstractExactScore):
    r"""The score of a `Gaussian`: $s = -(\alpha^2 C + \sigma^2 I)^{-1} r$ and $D = m + \alpha C (\alpha^2 C + \sigma^2 I)^{-1} r$.

    Here $r = x - \alpha m$; the posterior covariance is $\sigma^2 C (\alpha^2 C + \sigma^2 I)^{-1}$, the same for all x.
    Bishop (2006), eq. 2.113 to 2.117, https://www.microsoft.com/en-us/research/publication/pattern-recognition-machine-learning/.
    """

    sde: AbstractAffineSDE
    mean: Float[Array, "..."]
    covariance: AbstractCovariance

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def __call__(self, x: State, t: Time, condition: Any = None) -> State:
        check_unconditional(condition)
        residual, covariance, alpha, sigma = self._at(x, t)
        return -covariance.apply(lambda value: 1.0 / (alpha**2 * value + sigma**2), residual).reshape(x.shape)

    def denoise(self, x: State, t: Time, condition: Any = None) -> State:
        check_unconditional(condition)
        residual, covariance, alpha, sigma = self._at(x, t)
        shift = covariance.apply(lambda value: alpha * value / (alpha**2 * value + sigma**2), residual)
        return (_lead(self.mean, residual) + shift).reshape(x.shape)

    def log_prob(self, x: State, t: Time) -> Float[Array, "..."]:
        residual, covariance, alpha, sigma = self._at(x, t)
        return log_normal(covariance, residual, lambda value: alpha**2 * value + sigma**2)

    def divergence(self, x: State, t: Time) -> Float[Array, "..."]:
        residual, covariance, alpha, sigma = self._at(x, t)
        return jnp.broadcast_to(
            -covariance.trace(lambda value: 1.0 / (alpha**2 * value + sigma**2)), residual.shape[:-1]
        )

    def jacobian(self, x: State, t: Time) -> Float[Array, "..."]:
        """The Jacobian of the score, `(batch, d, d)`."""
        residual, covariance, alpha, sigma = self._at(x, t)
        matrix = -covariance.matrix(lambda value: 1.0 / (alpha**2 * value + sigma**2))
        return jnp.broadcast_to(matrix, residual.shape + residual.shape[-1:])

    def posterior_covariance(self, x: State, t: Time) -> Float[Array, "..."]:
        r"""$\mathrm{Cov}[x_0 \mid x_t = x]$, `(batch, d, d)`."""
        residual, covariance, alpha, sigma = self._at(x, t)
        matrix = covariance.matrix(lambda value: value * sigma**2 / (alpha**2 * value + sigma**2))
        return jnp.broadcast_to(matrix, residual.shape + residual.shape[-1:])

    def posterior_covariance_product(self, x: State, t: Time, vector: State) -> State:
        _, covariance, alpha, sigma = self._at(x, t)
        flat = flatten_event(vector, self.event_shape)
        product = covariance.apply(lambda value: value * sigma**2 / (alpha**2 * value + sigma**2), flat)
        return product.reshape(x.shape)

    def posterior_covariance_diagonal(self, x: State, t: Time) -> State:
        residual, covariance, alpha, sigma = self._at(x, t)
        variances = covariance.diagonal(lambda value: value * sigma**2 / (alpha**2 * value + sigma**2))
        return jnp.broadcast_to(variances, residual.shape).reshape(x.shape)

    def _at(self, x: State, t: Time) -> tuple[Array, AbstractCovariance, Array, Array]:
        flat = flatten_event(x, self.event_shape)
        alpha, sigma = kernel_at(self.sde, t, flat)
        residual = flat - alpha * _lead(self.mean, flat)
        return residual, self.covariance.leading(flat.ndim - 1, x.dtype), alpha, sigma


def _lead(mean: Array, flat: Array) -> Array:
    return mean.reshape((1,) * (flat.ndim - 1) + (-1,)).astype(flat.dtype)
