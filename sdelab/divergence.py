r"""The divergence $\nabla\cdot v$ of a velocity field, exactly or by random probes, in the same pass as $v$ itself.

With $J$ the Jacobian of $v$ at one sample, $\nabla\cdot v = \mathrm{tr}\,J$. The field is linearised once: that is the one
evaluation of the network, and every product $J u$ is a tangent pass through the same linearisation. The samples of a batch
do not mix, so that one pass gives the products of all of them. Probes are drawn once per sample and solve: the field that is
integrated is then smooth in time, and an adaptive solver has a solution to converge to.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import event_size, sum_event
from sdelab._checks import check_count
from sdelab._typing import PRNGKeys, State

Velocity = Callable[[State], State]


class AbstractDivergence(eqx.Module):
    r"""How $\nabla\cdot v$ is computed, in the same pass of the network as $v$.

    `stochastic`: whether `probes` draws, so that a key is needed; `exact`: whether the value has no error of its own.
    """

    stochastic: eqx.AbstractClassVar[bool]
    exact: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def probes(self, keys: PRNGKeys | None, x: State) -> State | None:
        """The random directions of one solve, shape `(probes, batch, *event)`: fixed per sample along its whole path."""

    @abc.abstractmethod
    def __call__(
        self, velocity: Velocity, x: State, probes: State | None
    ) -> tuple[State, Float[Array, "estimates batch"]]:
        """The velocity at `x`, and independent estimates of its divergence, whose mean is the estimate."""


class ExactTrace(AbstractDivergence):
    """The trace of the Jacobian, one tangent pass per dimension, `chunk` dimensions at a time.

    As many tangent passes as there are dimensions: for points and small images. No error.

    Fields: `chunk` >= 1, which bounds the memory: so many tangents of the batch are alive at once.
    """

    chunk: int = eqx.field(default=64, static=True)
    stochastic = False
    exact = True

    def __check_init__(self):
        check_count(chunk=self.chunk)

    def probes(self, keys: PRNGKeys | None, x: State) -> State | None:
        return None

    def __call__(
        self, velocity: Velocity, x: State, probes: State | None
    ) -> tuple[State, Float[Array, "estimates batch"]]:
        value, tangent = jax.linearize(velocity, x)
        size = event_size(x.shape)

        def entry(index: Array) -> Float[Array, " batch"]:
            direction = jax.nn.one_hot(index, size, dtype=x.dtype).reshape(1, *x.shape[1:])
            return sum_event(tangent(jnp.broadcast_to(direction, x.shape)) * direction)

        entries = jax.lax.map(entry, jnp.arange(size), batch_size=min(self.chunk, size))
        return value, jnp.sum(entries, axis=0)[None]


class Hutchinson(AbstractDivergence):
    r"""Hutchinson's estimate $E[u^T J u]$ with Rademacher probes, unbiased; one tangent pass per probe.

    Its variance is $2 \sum_{i \ne j} \bar J_{ij}^2$ with $\bar J = (J + J^T)/2$: the diagonal costs nothing.
    Hutchinson (1989), https://doi.org/10.1080/03610918908812806; Grathwohl et al. (2019), section 3.1,
    https://arxiv.org/abs/1810.01367.

    Fields: `count` >= 1 probes, whose spread gives the standard error.
    """

    count: int = eqx.field(default=1, static=True)
    stochastic = True
    exact = False

    def __check_init__(self):
        check_count(count=self.count)

    def probes(self, keys: PRNGKeys | None, x: State) -> State | None:
        return _draw(keys, x, self.count, jax.random.rademacher)

    def __call__(
        self, velocity: Velocity, x: State, probes: State | None
    ) -> tuple[State, Float[Array, "estimates batch"]]:
        return _quadratic_forms(velocity, x, probes)


class GaussianHutchinson(AbstractDivergence):
    r"""Hutchinson's estimate with normal probes: unbiased, with the larger variance $2\,\|\bar J\|_F^2$.

    As `Hutchinson` in all else.

    Fields: `count` >= 1 probes.
    """

    count: int = eqx.field(default=1, static=True)
    stochastic = True
    exact = False

    def __check_init__(self):
        check_count(count=self.count)

    def probes(self, keys: PRNGKeys | None, x: State) -> State | None:
        return _draw(keys, x, self.count, jax.random.normal)

    def __call__(
        self, velocity: Velocity, x: State, probes: State | None
    ) -> tuple[State, Float[Array, "estimates batch"]]:
        return _quadratic_forms(velocity, x, probes)


class HutchPlusPlus(AbstractDivergence):
    r"""Hutch++: the trace on the largest directions of $J$ exactly, and Hutchinson's estimate on what is left.

    With an orthonormal basis $Q$ and $P = I - Q Q^T$, $\mathrm{tr}\,J = \mathrm{tr}(Q^T J Q) + \mathrm{tr}(P J P)$; the first term
    is computed, the second estimated by k probes. $Q$ spans $J S$ for k random columns $S$. Three k tangent passes, and no
    error where $J$ has rank k.
    Meyer, Musco, Musco and Woodruff (2021), algorithm 1, https://arxiv.org/abs/2010.09649.

    Two things differ from there, because a flow's $J$ is far from low rank but near $a I + L$ with such an $L$: $a$ is what
    it does to noise. $Q$ spans $S$ and $J S$, hence $L S$ whatever $a$ is, at no further pass. And a probe enters as
    $(d - 2k)\,w^T J w$ with $w$ uniform on the sphere of what is left, to which a multiple of the identity is no noise (the
    normalisation of Epperly, Tropp and Webber (2024), https://arxiv.org/abs/2301.07825). So $a I + L$ is exact too.
    $S$ and the probes are drawn once a solve; $Q$ follows $J$ along the path. It is a constant to gradients, which stay
    unbiased: the estimate is, for every $Q$.

    Fields: `count` = k >= 1, at most half the dimension (there it is the exact trace).
    """

    count: int = eqx.field(default=4, static=True)
    stochastic = True
    exact = False

    def __check_init__(self):
        check_count(count=self.count)

    def probes(self, keys: PRNGKeys | None, x: State) -> State | None:
        if 2 * self.count > event_size(x.shape):
            raise ValueError(
                f"count = {self.count} is not accepted for {event_size(x.shape)} dimensions; accepted: at most half as many "
                "columns as dimensions, or ExactTrace()."
            )
        columns = _draw(keys, x, 2 * self.count, jax.random.normal)
        sketch = _orthonormal(_as_columns(columns[: self.count]))
        return jnp.concatenate([_as_states(sketch, x), columns[self.count :]])

    def __call__(
        self, velocity: Velocity, x: State, probes: State | None
    ) -> tuple[State, Float[Array, "estimates batch"]]:
        assert probes is not None
        value, tangent = jax.linearize(velocity, x)

        def product(columns: Float[Array, "batch d k"]) -> Float[Array, "batch d k"]:
            return _as_columns(jax.vmap(tangent)(_as_states(columns, x)))

        sketch, rest = (_as_columns(part) for part in (probes[: self.count], probes[self.count :]))
        image = product(sketch)
        more = _orthonormal(_outside(sketch, jax.lax.stop_gradient(image)))
        more = _orthonormal(_outside(sketch, more))  # where the image adds nothing to the sketch, any directions do
        known = jnp.sum(sketch * image, axis=(1, 2)) + jnp.sum(more * product(more), axis=(1, 2))
        basis = jnp.concatenate([sketch, more], axis=2)
        rest = _outside(basis, _outside(basis, rest))
        square = jnp.sum(rest**2, axis=1)
        forms = jnp.sum(rest * product(rest), axis=1) / jnp.where(square > 0, square, 1.0)
        return value, (known[:, None] + (event_size(x.shape) - 2 * self.count) * forms).T


class FixedProbes(AbstractDivergence):
    r"""Hutchinson's estimate with given directions, shape `(probes, batch, *event)`: to replay a recorded run."""

    directions: Float[Array, "probes batch ..."]
    stochastic = False
    exact = False

    def probes(self, keys: PRNGKeys | None, x: State) -> State | None:
        if self.directions.shape[1:] != x.shape:
            raise ValueError(f"directions have shape {self.directions.shape}; accepted: (probes, {x.shape}).")
        return self.directions.astype(x.dtype)

    def __call__(
        self, velocity: Velocity, x: State, probes: State | None
    ) -> tuple[State, Float[Array, "estimates batch"]]:
        return _quadratic_forms(velocity, x, probes)


def _draw(keys: PRNGKeys | None, x: State, count: int, distribution: Callable[..., Array]) -> State:
    """`count` directions a sample from its own key, `(count, batch, *event)`: the same in any batch."""
    assert keys is not None
    return jnp.moveaxis(jax.vmap(lambda key: distribution(key, (count, *x.shape[1:]), x.dtype))(keys), 1, 0)


def _as_columns(states: Float[Array, "k batch ..."]) -> Float[Array, "batch d k"]:
    return jnp.moveaxis(states.reshape(*states.shape[:2], -1), 0, -1)


def _as_states(columns: Float[Array, "batch d k"], x: State) -> Float[Array, "k batch ..."]:
    return jnp.moveaxis(columns, -1, 0).reshape(-1, *x.shape)


def _orthonormal(columns: Float[Array, "batch d k"]) -> Float[Array, "batch d k"]:
    return jnp.linalg.qr(columns)[0]


def _outside(basis: Float[Array, "batch d m"], columns: Float[Array, "batch d k"]) -> Float[Array, "batch d k"]:
    """The part of the columns that is orthogonal to the basis, in full precision on accelerators too."""
    exact = jax.lax.Precision.HIGHEST
    inside = jnp.matmul(jnp.swapaxes(basis, 1, 2), columns, precision=exact)
    return columns - jnp.matmul(basis, inside, precision=exact)


def _quadratic_forms(
    velocity: Velocity, x: State, probes: State | None
) -> tuple[State, Float[Array, "estimates batch"]]:
    assert probes is not None
    value, tangent = jax.linearize(velocity, x)
    return value, jax.vmap(lambda probe: sum_event(tangent(probe) * probe))(probes)
