from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from sdelab._checks import check_count, check_finite, check_positive
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


class GaussianMixture(AbstractDensity):
    r"""The mixture $\sum_k w_k N(m_k, C_k)$, diffused into $\sum_k w_k N(\alpha m_k, \alpha^2 C_k + \sigma^2 I)$.

    `means` are `(k, *event)`, d numbers each; `covariances` are `()`, `(k,)`, `(k, d)` or `(k, d, d)`, or an operator
    such as `LowRank(factors, scales)` with `(k, d, r)` and `(k,)`. Coordinates are those of the event flattened in
    C order. `weights` are k numbers > 0, in proportion; equal by default. Full covariances are decomposed once, here.
    They may be singular, zero too: then there is no density at t = 0.
    Errors: shapes that do not fit, weights that are not positive, covariances that are none.
    """

    means: Float[Array, "k ..."]
    covariances: AbstractCovariance
    weights: Float[Array, " k"]

    def __init__(
        self,
        means: ArrayLike,
        covariances: ArrayLike | AbstractCovariance,
        weights: ArrayLike | None = None,
    ):
        self.means = as_floating(means)
        if self.means.ndim < 2:
            raise ValueError(f"means have shape {self.means.shape}; accepted: (k, *event), one mean a component.")
        k, dimension = self.means.shape[0], self.means[0].size
        self.covariances = as_covariance(covariances, (k,), dimension, self.means.dtype)
        self.weights = jnp.ones((k,), self.means.dtype) if weights is None else as_floating(weights)
        if self.weights.shape != (k,):
            raise ValueError(f"weights have shape {self.weights.shape}; accepted: ({k},), one weight a component.")

    def __check_init__(self):
        check_positive(weights=self.weights)
        check_finite(means=self.means)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.means.shape[1:]

    def sample(self, key: PRNGKey, n: int) -> State:
        check_count(n=n)
        return _sample(self, key, int(n))

    def log_prob(self, x: State) -> Float[Array, "..."]:
        check_density(self.covariances)
        return _log_prob(self, flatten_event(x, self.event_shape))

    def diffused(self, sde: AbstractAffineSDE, t: Time) -> "GaussianMixture":
        alpha, sigma = scalar_kernel_at(sde, t, self.means.dtype)
        covariances = self.covariances.map(lambda value: alpha**2 * value + sigma**2)
        return GaussianMixture(alpha * self.means, covariances, self.weights)

    def mean(self) -> Float[Array, "..."]:
        """The mean of the mixture, of the shape of an event."""
        return jnp.tensordot(self._proportions(), self.means, axes=1, precision=jax.lax.Precision.HIGHEST)

    def covariance(self) -> Float[Array, "d d"]:
        """The covariance matrix of the mixture, between the coordinates of the flattened event."""
        spread = (self.means - self.mean()[None]).reshape(self.means.shape[0], -1)
        exact, within = jax.lax.Precision.HIGHEST, self.covariances.matrix(lambda value: value)
        between = jnp.einsum("k,kd,ke->de", self._proportions(), spread, spread, precision=exact)
        return jnp.einsum("k,kde->de", self._proportions(), within, precision=exact) + between

    def score(self, sde: AbstractAffineSDE) -> "GaussianMixtureScore":
        return GaussianMixtureScore(sde, self)

    def _proportions(self) -> Float[Array, " k"]:
        return self.weights / jnp.sum(self.weights)


@jit
def _sample(mixture: GaussianMixture, key: PRNGKey, n: int) -> State:
    key_component, key_noise = jax.random.split(key)
    component = jax.random.categorical(key_component, jnp.log(mixture.weights), shape=(n,))
    z = jax.random.normal(key_noise, (n, mixture.means[0].size), mixture.means.dtype)
    shift = mixture.covariances.take(component).apply(jnp.sqrt, z)
    return mixture.means[component] + shift.reshape(n, *mixture.event_shape)


@jit
def _log_prob(mixture: GaussianMixture, flat: Float[Array, "..."]) -> Float[Array, "..."]:
    one = jnp.ones((1,) * flat.ndim, flat.dtype)
    return jax.nn.logsumexp(_Components.at(mixture, flat, one, 0.0 * one).log_joint(), axis=-1)


class GaussianMixtureScore(AbstractExactScore):
    r"""The score of a `GaussianMixture`, $s = \sum_k p_k s_k$ with $p_k$ the posterior probability of component k.

    With $r_k = x - \alpha m_k$ and $V_k = \alpha^2 C_k + \sigma^2 I$: $p_k \propto w_k N(r_k; 0, V_k)$, $s_k = -V_k^{-1} r_k$,
    $D_k = m_k + \alpha C_k V_k^{-1} r_k$, $D = \sum_k p_k D_k$, and both second moments split into within and between:
    $\mathrm{Cov}[x_0 \mid x_t] = \sum_k p_k [\sigma^2 C_k V_k^{-1} + (D_k - D)(D_k - D)^T]$ and
    $\nabla^2\log p_t = \sum_k p_k [-V_k^{-1} + (s_k - s)(s_k - s)^T]$.
    """

    sde: AbstractAffineSDE
    mixture: GaussianMixture

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.mixture.event_shape

    def __call__(self, x: State, t: Time, condition: Any = None) -> State:
        check_unconditional(condition)
        at = self._at(x, t)
        return _average(at.probabilities(), at.scores()).reshape(x.shape)

    def denoise(self, x: State, t: Time, condition: Any = None) -> State:
        check_unconditional(condition)
        at = self._at(x, t)
        return _average(at.probabilities(), at.denoised()).reshape(x.shape)

    def log_prob(self, x: State, t: Time) -> Float[Array, "..."]:
        return jax.nn.logsumexp(self._at(x, t).log_joint(), axis=-1)

    def responsibilities(self, x: State, t: Time) -> Float[Array, "..."]:
        """The posterior probabilities of the components given $x_t = x$, `(batch, k)`."""
        return self._at(x, t).probabilities()

    def divergence(self, x: State, t: Time) -> Float[Array, "..."]:
        at = self._at(x, t)
        probabilities = at.probabilities()
        spread = _centred(probabilities, at.scores())
        within = at.covariances.trace(at.precision)
        return jnp.sum(probabilities * (jnp.sum(spread**2, axis=-1) - within), axis=-1)

    def jacobian(self, x: State, t: Time) -> Float[Array, "..."]:
        """The Jacobian of the score, `(batch, d, d)`."""
        at = self._at(x, t)
        return _second_moment(at.probabilities(), -at.covariances.matrix(at.precision), at.scores())

    def posterior_covariance(self, x: State, t: Time) -> Float[Array, "..."]:
        r"""$\mathrm{Cov}[x_0 \mid x_t = x]$, `(batch, d, d)`."""
        at = self._at(x, t)
        return _second_moment(at.probabilities(), at.covariances.matrix(at.posterior_variance), at.denoised())

    def posterior_covariance_product(self, x: State, t: Time, vector: State) -> State:
        at = self._at(x, t)
        probabilities = at.probabilities()
        vector = flatten_event(vector, self.event_shape)[..., None, :]
        spread = _centred(probabilities, at.denoised())
        within = at.covariances.apply(at.posterior_variance, vector)
        between = spread * jnp.sum(spread * vector, axis=-1, keepdims=True)
        return _average(probabilities, within + between).reshape(x.shape)

    def posterior_covariance_diagonal(self, x: State, t: Time) -> State:
        at = self._at(x, t)
        probabilities = at.probabilities()
        spread = _centred(probabilities, at.denoised())
        within = at.covariances.diagonal(at.posterior_variance)
        return _average(probabilities, within + spread**2).reshape(x.shape)

    def _at(self, x: State, t: Time) -> "_Components":
        flat = flatten_event(x, self.event_shape)
        return _Components.at(self.mixture, flat, *kernel_at(self.sde, t, flat))


class _Components(NamedTuple):
    """What every component says of a batch; arrays are `(batch, k, d)`, or have axes of size one instead."""

    means: Array
    residual: Array
    covariances: AbstractCovariance
    log_weights: Array
    alpha: Array
    sigma: Array

    @classmethod
    def at(cls, mixture: GaussianMixture, flat: Array, alpha: Array, sigma: Array) -> "_Components":
        k, axes = mixture.weights.shape[0], flat.ndim - 1
        means = mixture.means.reshape((1,) * axes + (k, -1)).astype(flat.dtype)
        covariances = mixture.covariances.leading(axes, flat.dtype)
        log_weights = jax.nn.log_softmax(jnp.log(mixture.weights)).reshape((1,) * axes + (k,)).astype(flat.dtype)
        alpha, sigma = alpha[..., None], sigma[..., None]
        return cls(means, flat[..., None, :] - alpha * means, covariances, log_weights, alpha, sigma)

    def variance(self, value: Array) -> Array:
        return self.alpha**2 * value + self.sigma**2

    def precision(self, value: Array) -> Array:
        return 1.0 / self.variance(value)

    def gain(self, value: Array) -> Array:
        return self.alpha * value / self.variance(value)

    def posterior_variance(self, value: Array) -> Array:
        return value * (self.sigma**2 / self.variance(value))

    def log_joint(self) -> Array:
        r"""$\log w_k N(r_k; 0, V_k)$."""
        return self.log_weights + log_normal(self.covariances, self.residual, self.variance)

    def probabilities(self) -> Array:
        return jax.nn.softmax(self.log_joint(), axis=-1)

    def scores(self) -> Array:
        return -self.covariances.apply(self.precision, self.residual)

    def denoised(self) -> Array:
        return self.means + self.covariances.apply(self.gain, self.residual)


def _average(probabilities: Array, values: Array) -> Array:
    return jnp.sum(probabilities[..., None] * values, axis=-2)


def _centred(probabilities: Array, values: Array) -> Array:
    return values - _average(probabilities, values)[..., None, :]


def _second_moment(probabilities: Array, within: Array, values: Array) -> Array:
    """The average of `within`, plus the covariance of `values` between the components."""
    spread = _centred(probabilities, values)
    between = jnp.einsum("...k,...kd,...ke->...de", probabilities, spread, spread, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(probabilities[..., None, None] * within, axis=-3) + between
