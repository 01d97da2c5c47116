r"""The solvers of sdelab as one would write them by hand, for one problem: a `lax.scan` over numbers known beforehand.

Everything that depends on the grid alone is computed in NumPy. What is left in the loop is the score, and linear
combinations of states. There are two kinds of loop: one whose steps have stages, and one that remembers past
predictions. The numbers of a method are written here from its paper (those of diffrax's Runge–Kutta methods from its
coefficients), in the kernel of `VP`, $\lambda = \log(\alpha/\sigma)$ and $h = \lambda_1 - \lambda_0$.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

Prediction = Callable[..., jax.Array]
NOISE: Prediction = lambda score, x, t: score.noise(x, t)  # noqa: E731
DATA: Prediction = lambda score, x, t: score.denoise(x, t)  # noqa: E731
SCORE: Prediction = lambda score, x, t: score(x, t)  # noqa: E731

BETA_MIN, BETA_MAX = 0.1, 20.0


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The kernel of `VP()` at some times, in float64."""

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    level: np.ndarray

    def __getitem__(self, part: Any) -> "Kernel":
        return Kernel(self.t[part], self.alpha[part], self.sigma[part], self.level[part])


def kernel(t: np.ndarray) -> Kernel:
    total = BETA_MIN * t + 0.5 * (BETA_MAX - BETA_MIN) * t**2
    alpha, sigma = np.exp(-0.5 * total), np.sqrt(-np.expm1(-total))
    return Kernel(t, alpha, sigma, np.log(alpha / sigma))


def kernel_at_level(level: np.ndarray) -> Kernel:
    total = np.logaddexp(0.0, -2.0 * level)
    root = np.sqrt(BETA_MIN**2 + 2.0 * (BETA_MAX - BETA_MIN) * total)
    return kernel(2.0 * total / (BETA_MIN + root))


class Staged(NamedTuple):
    r"""Stages $y_{s+1} = a_s x + \sum_{j \le s} b_{sj} m_j$ from the predictions $m_j$ at $(y_j, t_j)$, then noise of size `std`.

    With `lift` the noise comes first, $x \to \mathrm{lift}\,x + \mathrm{std}\,z$. With `noises` the same normal arrays are in every stage:
    `first` has their weights in $y_0$, if they are there, and `noises[s]` those in $y_{s+1}$.
    """

    t: np.ndarray
    a: np.ndarray
    b: np.ndarray
    std: np.ndarray | None = None
    lift: np.ndarray | None = None
    first: np.ndarray | None = None
    noises: np.ndarray | None = None


class Multistep(NamedTuple):
    r"""$x_1 = a x_0 + \sum_j b_j m_{-j}$, then noise of size `std`."""

    t: np.ndarray
    a: np.ndarray
    b: np.ndarray
    std: np.ndarray | None = None


class Corrected(NamedTuple):
    r"""A multistep step that first takes the last one again, $c_a x_{-1} + \sum_j c_j m_{-j}$, with the new prediction."""

    t: np.ndarray
    a: np.ndarray
    b: np.ndarray
    c_a: np.ndarray
    c: np.ndarray


class Langevin(NamedTuple):
    r"""$x \to x + \mathrm{size}\,s + \mathrm{noise}\,z$, then $a x + b s + \mathrm{std}\,z$, both at t."""

    t: np.ndarray
    size: np.ndarray
    noise: np.ndarray
    a: np.ndarray
    b: np.ndarray
    std: np.ndarray


@dataclasses.dataclass(frozen=True)
class Method:
    """A solver of sdelab, and the same by hand: what it predicts, its numbers on a grid, and its first steps.

    `draws`: normal arrays a step.
    """

    solver: diffrax.AbstractSolver
    prediction: Prediction
    numbers: Callable[[Kernel], Any]
    draws: int = 0
    start: Callable[[Kernel], list[Staged]] | None = None


def stages_step(prediction: Prediction, score: Any, x: jax.Array, now: Staged, draw: Callable[[], jax.Array]):
    """A single step of one stage or more."""
    if now.lift is not None and now.std is not None:
        x = jnp.asarray(now.lift * x + now.std * draw())
    z = [] if now.noises is None else [draw() for _ in range(now.noises.shape[1])]
    predictions, y = [], x if now.first is None else _plus(x, now.first, z)
    for s in range(now.t.shape[0]):
        predictions.append(prediction(score, y, now.t[s]))
        y = _plus(now.a[s] * x, now.b[s], predictions)
        y = y if now.noises is None else _plus(y, now.noises[s], z)
    return y if now.std is None or now.lift is not None else y + now.std * draw()


def _plus(y: jax.Array, weights: Any, values: list[jax.Array]) -> jax.Array:
    for j, value in enumerate(values):
        y = y + weights[j] * value
    return y


def multistep_step(prediction: Prediction, score: Any, carry: Any, now: Multistep, draw: Callable[[], jax.Array]):
    x, past = carry
    m = prediction(score, x, now.t)
    y = now.a * x + now.b[0] * m
    for j, old in enumerate(past):
        y = y + now.b[j + 1] * old
    if now.std is not None:
        y = y + now.std * draw()
    return y, (m, *past)[: len(past)]


def corrected_step(prediction: Prediction, score: Any, carry: Any, now: Corrected, draw: Callable[[], jax.Array]):
    x, before, past = carry
    m = prediction(score, x, now.t)
    x = now.c_a * before + now.c[0] * m
    for j, old in enumerate(past):
        x = x + now.c[j + 1] * old
    y = now.a * x + now.b[0] * m
    for j, old in enumerate(past[:-1]):
        y = y + now.b[j + 1] * old
    return y, x, (m, *past)[: len(past)]


def langevin_step(prediction: Prediction, score: Any, x: jax.Array, now: Langevin, draw: Callable[[], jax.Array]):
    x = x + now.size * prediction(score, x, now.t) + now.noise * draw()
    return now.a * x + now.b * prediction(score, x, now.t) + now.std * draw()


@functools.partial(jax.jit, static_argnames=("method",))
def scan(key: jax.Array, score: Any, x: jax.Array, numbers: Any, start: list[Staged], noise: Any, *, method: Method):
    """The whole loop in one program. The noise comes from keys that are split on the way, or is given."""
    carry, step = _started(method, score, x, numbers, start)

    def body(state, row):
        key, carry = state
        now, given = row
        keys = jax.random.split(key, 1 + method.draws) if method.draws and given is None else [key]
        z = iter(keys[1:] if given is None else given)

        def draw() -> jax.Array:
            return jax.random.normal(next(z), x.shape, x.dtype) if given is None else next(z)

        return (keys[0], step(method.prediction, score, carry, now, draw)), None

    (_, carry), _ = jax.lax.scan(body, (key, carry), (numbers, noise))
    return carry[0] if isinstance(carry, tuple) else carry


def _started(method: Method, score: Any, x: jax.Array, numbers: Any, start: list[Staged]):
    """The state after the first steps, with the memory that they fill, and the step of the loop."""
    if isinstance(numbers, Staged):
        return x, stages_step
    if isinstance(numbers, Langevin):
        return x, langevin_step
    past, before = (), x
    for row in start:
        before, (x, m) = x, first_step(method.prediction, score, x, past, row)
        past = (m, *past)
    depth = numbers.b.shape[1] - (0 if isinstance(numbers, Corrected) else 1)
    past = (*past, *(jnp.zeros_like(x) for _ in range(depth - len(past))))
    return ((x, before, past), corrected_step) if isinstance(numbers, Corrected) else ((x, past), multistep_step)


def first_step(prediction: Prediction, score: Any, x: jax.Array, past: tuple[jax.Array, ...], row: Staged):
    """A step whose stages have past predictions too: the new state, and the prediction at the old one."""
    predictions, y = [prediction(score, x, row.t[0]), *past], x
    for s in range(row.a.shape[0]):
        if s:
            predictions.append(prediction(score, y, row.t[s]))
        y = row.a[s] * x
        for weight, m in zip(row.b[s], predictions, strict=False):
            y = y + weight * m
    return y, predictions[0]


def prepare(method: Method, times: np.ndarray) -> Callable[..., jax.Array]:
    """`(key, score, x, noise=None) -> x` on a grid, with its numbers on the device in the default precision.

    `noise` of shape `(steps, draws, *x.shape)` replays a run.
    """
    at = kernel(np.asarray(times, np.float64))
    start = [_on_device(row) for row in method.start(at)] if method.start else []
    numbers = jax.tree.map(lambda values: values[len(start) :], _on_device(method.numbers(at)))

    def run(key: jax.Array, score: Any, x: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        return scan(key, score, x, numbers, start, noise, method=method)

    return run


def _on_device(numbers: Any) -> Any:
    return jax.tree.map(lambda values: jnp.asarray(values, float), numbers)


def staged(columns: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]], std: np.ndarray | None = None) -> Staged:
    """From `(t, a, [b_0, ..., b_s])` of each stage."""
    b = np.zeros((len(columns[0][0]), len(columns), len(columns)))
    for s, (_, _, weights) in enumerate(columns):
        for j, weight in enumerate(weights):
            b[:, s, j] = weight
    t, a = (np.stack([column[i] for column in columns], axis=1) for i in range(2))
    return Staged(t, a, b, std)
