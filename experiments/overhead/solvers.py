"""Every fixed-grid solver through `sdelab.sample` against the same method by hand, on one mixture."""

from typing import Any

import jax
import numpy as np

import sdelab
from experiments.overhead.methods import METHODS
from experiments.overhead.rivals import Method, prepare
from experiments.overhead.sampling import POINTS, POINTS_LIMIT, compilations, mixture_score
from experiments.overhead.timing import Comparison, compare, timed

CHECKED_STEPS, CHECKED_POINTS, AGREEMENT = 9, 8, 1e-9


def compare_solvers(rounds: int, steps: int, names: list[str] | None = None) -> list[Comparison]:
    """One comparison a method, each after a check that the two sides compute the same numbers."""
    return [compare_solver(name, METHODS[name], rounds, steps) for name in names or METHODS]


def compare_solver(name: str, method: Method, rounds: int, steps: int) -> Comparison:
    gap = largest_gap(method)
    if not gap <= AGREEMENT:
        raise AssertionError(f"{name}: sdelab and the scan differ by {gap} in float64; expected at most {AGREEMENT}.")
    sde, score, key = sdelab.VP(), mixture_score(), jax.random.key(0)
    grid = sdelab.grids.log_snr(sde, steps)
    x_T = sde.prior_sample(jax.random.key(1), POINTS)
    by_hand = prepare(method, grid)

    def ours(process: Any, key: jax.Array = key) -> jax.Array:
        return sdelab.sample(key, process, x_T, solver=method.solver, grid=grid)

    def new() -> tuple[Any]:
        return (process(method, score),)

    jax.block_until_ready(ours(*new()))
    with compilations() as compiled:
        jax.block_until_ready(ours(*new(), jax.random.key(2)))
    if compiled:
        raise AssertionError(f"{name}: the second call of sdelab.sample compiled {compiled}; expected nothing.")
    return compare(name, timed(ours, new), timed(lambda: by_hand(key, score, x_T)), rounds=rounds, limit=POINTS_LIMIT)


def largest_gap(method: Method) -> float:
    """Between the two sides in float64, from the same points on the same grid with the same noise."""
    with jax.enable_x64(True):
        score = mixture_score()
        sde, shape = sdelab.VP(), (CHECKED_POINTS, POINTS[1])
        grid = sdelab.grids.log_snr(sde, CHECKED_STEPS)
        x_T = jax.random.normal(jax.random.key(1), shape)
        z = jax.random.normal(jax.random.key(2), (CHECKED_STEPS, method.draws, *shape)) if method.draws else None
        replay = None if z is None else sdelab.solvers.StoredNoise(z)
        ours = sdelab.sample(None, process(method, score), x_T, solver=method.solver, grid=grid, noise=replay)
        by_hand = prepare(method, grid)(jax.random.key(0), score, x_T, z)
        return float(np.max(np.abs(np.asarray(ours - by_hand))))


def process(method: Method, score) -> sdelab.ReverseSDE | sdelab.ProbabilityFlow:
    """Made anew for every call, so that what is cached cannot hang on the object; its making is not timed."""
    return (sdelab.ReverseSDE if method.draws else sdelab.ProbabilityFlow)(sdelab.VP(), score)
