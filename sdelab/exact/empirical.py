from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from sdelab._checks import check_count, is_concrete
from sdelab._typing import PRNGKey, State, Time
from sdelab.exact.base import (
    AbstractDistribution,
    AbstractExactScore,
    as_floating,
    check_unconditional,
    flatten_event,
    kernel_at,
)
from sdelab.sde import AbstractAffineSDE


class Empirical(AbstractDistribution):
    r"""The distribution of a data set, $\frac1n \sum_i \delta(x - y_i)$: its score is the ideal one, which memorises.

    `data` are `(n, *event)`. A batch meets `chunk` data at a time, so that memory does not grow with n. A sum of deltas
    has no density, and no score at t = 0; diffused to t > 0 it is a mixture of n Gaussians of size $\sigma$.
    Errors: data that are no array of events, `chunk` < 1, a time at which $\sigma = 0$.
    """

    data: Float[Array, "n ..."]
    chunk: int = eqx.field(static=True)

    def __init__(self, data: ArrayLike, *, chunk: int = 256):
        self.data = as_floating(data)
        self.chunk = chunk

    def __check_init__(self):
        check_count(chunk=self.chunk)
        if self.data.ndim < 2 or 0 in self.data.shape:
            raise ValueError(f"data have shape {self.data.shape}; accepted: (n, *event), at least one datum.")

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.data.shape[1:]

    def sample(self, key: PRNGKey, n: int) -> State:
        check_count(n=n)
        return self.data[jax.random.randint(key, (n,), 0, self.data.shape[0])]

    def score(self, sde: AbstractAffineSDE) -> "EmpiricalScore":
        return EmpiricalScore(sde, self)


class EmpiricalScore(AbstractExactScore):
    r"""The score of a data set: $D = \sum_i p_i y_i$ with $p_i \propto \exp(-|x - \alpha y_i|^2/2\sigma^2)$.

    The sums run over chunks of the data with a running maximum (online softmax). One pass gives the score, the denoiser
    and the density; a second one, around the denoiser, second moments. The gradient recomputes the chunks.
    Karras et al. (2022), appendix B.3, https://arxiv.org/abs/2206.00364; Milakov and Gimelshein (2018),
    https://arxiv.org/abs/1805.02867.
    """

    sde: AbstractAffineSDE
    empirical: Empirical

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.empirical.event_shape

    def __call__(self, x: State, t: Time, condition: Any = None) -> State:
        check_unconditional(condition)
        at = self._at(x, t)
        return ((at.alpha * self._mean(at) - at.x) / at.sigma**2).reshape(x.shape)

    def denoise(self, x: State, t: Time, condition: Any = None) -> State:
        check_unconditional(condition)
        return self._mean(self._at(x, t)).reshape(x.shape)

    def log_prob(self, x: State, t: Time) -> Float[Array, "..."]:
        at = self._at(x, t)
        sums = self._sums(at)
        n, d = self.empirical.data.shape[0], at.x.shape[1]
        density = sums.maximum + jnp.log(sums.total) - jnp.log(jnp.asarray(n, x.dtype))
        constant = 0.5 * d * jnp.log(2 * jnp.pi * at.sigma[:, 0] ** 2)
        return (density - constant).reshape(x.shape[: x.ndim - len(self.event_shape)])

    def divergence(self, x: State, t: Time) -> Float[Array, "..."]:
        at = self._at(x, t)
        trace = jnp.sum(self._moment(at, lambda spread: jnp.sum(spread**2, axis=-1, keepdims=True)), axis=-1)
        alpha, sigma = at.alpha[:, 0], at.sigma[:, 0]
        divergence = (alpha**2 * trace / sigma**2 - at.x.shape[1]) / sigma**2
        return divergence.reshape(x.shape[: x.ndim - len(self.event_shape)])

    def posterior_covariance_product(self, x: State, t: Time, vector: State) -> State:
        at = self._at(x, t)
        v = flatten_event(vector, self.event_shape).reshape(at.x.shape)[:, None, :]
        product = self._moment(at, lambda spread: spread * jnp.sum(spread * v, axis=-1, keepdims=True))
        return product.reshape(x.shape)

    def posterior_covariance_diagonal(self, x: State, t: Time) -> State:
        return self._moment(self._at(x, t), jnp.square).reshape(x.shape)

    def _at(self, x: State, t: Time) -> "_Rows":
        flat = flatten_event(x, self.event_shape)
        alpha, sigma = kernel_at(self.sde, t, flat)
        if is_concrete(sigma) and not bool(jnp.all(sigma > 0)):
            raise ValueError(
                f"t = {t}: a data set has no density where sigma(t) = 0; accepted: t > 0 with sigma(t) > 0."
            )
        rows = flat.reshape(-1, flat.shape[-1])
        lead = flat.shape[:-1] + (1,)
        return _Rows(rows, *(jnp.broadcast_to(value, lead).reshape(-1, 1) for value in (alpha, sigma)))

    def _mean(self, at: "_Rows") -> Array:
        sums = self._sums(at)
        return sums.values / sums.total[:, None]

    def _sums(self, at: "_Rows") -> "_Sums":
        def visit(sums: _Sums, data: Array, logits: Array) -> _Sums:
            # The maximum cancels out of every result, so no derivative passes through it.
            maximum = jax.lax.stop_gradient(jnp.maximum(sums.maximum, jnp.max(logits, axis=1)))
            shrink = jnp.exp(sums.maximum - maximum)
            weights = jnp.exp(logits - maximum[:, None])
            values = jnp.matmul(weights, data, precision=jax.lax.Precision.HIGHEST)
            return _Sums(
                maximum, sums.total * shrink + jnp.sum(weights, axis=1), sums.values * shrink[:, None] + values
            )

        empty = jnp.full(at.x.shape[:1], -jnp.inf, at.x.dtype)
        return self._over_chunks(at, visit, _Sums(empty, jnp.zeros_like(empty), jnp.zeros_like(at.x)))

    def _moment(self, at: "_Rows", function: Callable[[Array], Array]) -> Array:
        """The posterior mean of a function of $y - D$, which maps `(batch, chunk, d)` to `(batch, chunk, m)`."""
        sums = self._sums(at)
        centre = sums.values / sums.total[:, None]

        def visit(moment: Array, data: Array, logits: Array) -> Array:
            weights = jnp.exp(logits - sums.maximum[:, None]) / sums.total[:, None]
            return moment + jnp.sum(weights[..., None] * function(data[None] - centre[:, None]), axis=1)

        shape = jax.eval_shape(function, centre[:, None]).shape
        return self._over_chunks(at, visit, jnp.zeros((shape[0], shape[2]), at.x.dtype))

    def _over_chunks(self, at: "_Rows", visit: Callable[[Any, Array, Array], Any], start: Any) -> Any:
        """Folds `visit(carry, chunk of data, logits of the chunk)` over the data."""
        n = self.empirical.data.shape[0]
        data = self.empirical.data.reshape(n, -1)
        size = min(self.empirical.chunk, n)

        @jax.checkpoint
        def step(carry: Any, index: Array) -> tuple[Any, None]:
            first = jnp.minimum(index * size, n - size)  # the last chunk reaches back into the one before it
            part = jax.lax.dynamic_slice_in_dim(data, first, size).astype(at.x.dtype)
            new = first + jnp.arange(size) >= index * size
            # Differences before squares: |x|^2 - 2xy + |y|^2 cancels. The sum fuses, nothing (batch, chunk, d) is stored.
            squares = jnp.sum((at.x[:, None] - at.alpha[:, :, None] * part[None]) ** 2, axis=-1)
            logits = jnp.where(new[None], -0.5 * squares / at.sigma**2, -jnp.inf)
            return visit(carry, part, logits), None

        return jax.lax.scan(step, start, jnp.arange(-(-n // size)))[0]


class _Rows(NamedTuple):
    """States `(batch, d)` with `alpha` and `sigma`, `(batch, 1)`."""

    x: Array
    alpha: Array
    sigma: Array


class _Sums(NamedTuple):
    """Of the weights `exp(logit - maximum)`: the maximum and the total, `(batch,)`, and the sum of data, `(batch, d)`."""

    maximum: Array
    total: Array
    values: Array
