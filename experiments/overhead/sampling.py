"""`sdelab.sample` with Euler–Maruyama against the same method as a hand-written `lax.scan`, with the same score."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import sdelab
from experiments.overhead.timing import Comparison, compare, timed

Score = Callable[..., Any]

POINTS = (4096, 2)
POINTS_LIMIT = 1.10
IMAGES = (16, 8, 8, 1)
IMAGES_LIMIT = 1.03


@jax.jit
def scan_euler_maruyama(key: jax.Array, score: Score, x: jax.Array, ts: jax.Array) -> jax.Array:
    """The plain loop that one would write for `VP()`: split a key, draw, step."""
    beta_min, beta_max = 0.1, 20.0

    def step(carry: tuple[jax.Array, jax.Array], interval: tuple[jax.Array, jax.Array]):
        key, x = carry
        t0, t1 = interval
        key, key_noise = jax.random.split(key)
        beta = beta_min + t0 * (beta_max - beta_min)
        drift = -0.5 * beta * x - beta * score(x, t0)
        z = jax.random.normal(key_noise, x.shape, x.dtype)
        return (key, x - (t0 - t1) * drift + jnp.sqrt(beta * (t0 - t1)) * z), None

    (_, x), _ = jax.lax.scan(step, (key, x), (ts[:-1], ts[1:]))
    return x


def mixture_score() -> Score:
    """The exact score of a mixture of two Gaussians in the plane, under `VP()`."""
    mixture = sdelab.exact.GaussianMixture(
        jnp.array([[-2.0, 0.0], [2.0, 1.0]]), jnp.array([0.1, 0.2]), jnp.array([0.4, 0.6])
    )
    return mixture.score(sdelab.VP())


def compare_points(rounds: int, steps: int) -> Comparison:
    return compare_samplers(f"mixture, {POINTS[0]} points", mixture_score(), POINTS, rounds, steps, POINTS_LIMIT)


def compare_images(rounds: int, steps: int) -> Comparison:
    return compare_samplers(f"U-Net, {IMAGES[0]} images", unet_score(), IMAGES, rounds, steps, IMAGES_LIMIT)


def unet_score() -> Score:
    """The compact U-Net of `sdelab.nn` as a score under `VP()`; a pytree, whose leaves are the weights."""
    apply, params = sdelab.nn.as_function(sdelab.nn.UNet(IMAGES[-1], rngs=nnx.Rngs(0)))
    return sdelab.score.NetworkScore(sdelab.VP(), sdelab.score.NoisePrediction(), apply, params)


def compare_samplers(
    name: str, score: Score, shape: tuple[int, ...], rounds: int, steps: int, limit: float
) -> Comparison:
    """Times both from the same `x_T`, after a check that a second call compiles nothing."""
    key = jax.random.key(0)
    x_T = sdelab.VP().prior_sample(jax.random.key(1), shape)
    grid = sdelab.grids.uniform(sdelab.VP(), steps)
    ts = jnp.asarray(np.asarray(grid), jnp.float32)

    def ours(key: jax.Array = key) -> jax.Array:
        process = sdelab.ReverseSDE(sdelab.VP(), score)  # made anew: what is cached may not hang on the object
        return sdelab.sample(key, process, x_T, solver=sdelab.solvers.EulerMaruyama(), grid=grid)

    def reference() -> jax.Array:
        return scan_euler_maruyama(key, score, x_T, ts)

    check_same_law(ours(), reference())
    with compilations() as compiled:
        jax.block_until_ready(ours(jax.random.key(2)))
    if compiled:
        raise AssertionError(f"{name}: the second call of sdelab.sample compiled {compiled}; expected nothing.")
    return compare(name, timed(ours), timed(reference), rounds=rounds, limit=limit)


def check_same_law(ours: jax.Array, reference: jax.Array) -> None:
    """The two draw different noise: means and standard deviations agree up to the error of `batch` samples."""
    for statistic in (jnp.mean, jnp.std):
        a, b = float(statistic(ours)), float(statistic(reference))
        tolerance = 8 * float(jnp.std(reference)) / len(ours) ** 0.5
        if not abs(a - b) < tolerance:
            raise AssertionError(f"{statistic.__name__}: {a} by sdelab.sample, {b} by the scan; apart > {tolerance}.")


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Collects the names of the functions that JAX compiles inside the block."""
    names: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if message.startswith("Compiling "):
                names.append(message.split()[1])

    logger, handler = logging.getLogger("jax"), Collect()
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        with jax.log_compiles(True):
            yield names
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
