"""What is solved: two mixtures, of which everything is known, and a trained network."""

import dataclasses
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import sdelab
from experiments.work_precision.cases import PROCESSES
from sdelab import grids
from sdelab.testing.order import walk
from sdelab.train import load_run
from sdelab.train.build import build_dataset

PROBLEMS = ("mixture 2-D", "mixture 64-D", "trained network")
KEY = 0
REFERENCE_STEPS = 384  # of order 8, uniform in log-SNR
NETWORK_STEPS, NETWORK_POINTS = 96, 64  # the same for a network, whose evaluations cost more


@dataclasses.dataclass(frozen=True)
class Problem:
    """One process and one score. `x_T` are states at t_max, `flow_end` where the exact flow carries the first of them.

    `samples` are as many draws from p_{t_min}, and `others` a second set, whose distance to the first is the smallest
    that can be told from 0.
    """

    name: str
    process_name: str
    sde: sdelab.AbstractAffineSDE
    score: Any
    condition: Any
    x_T: np.ndarray
    flow_end: np.ndarray
    samples: np.ndarray
    others: np.ndarray

    def flow(self) -> sdelab.ProbabilityFlow:
        condition = None if self.condition is None else self.condition[: len(self.flow_end)]
        return sdelab.ProbabilityFlow(self.sde, self.score, condition)

    def reverse_sde(self) -> sdelab.ReverseSDE:
        return sdelab.ReverseSDE(self.sde, self.score, condition=self.condition)


def mixture_parameters(dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, variances of the coordinates, and weights of five components of standard deviations 0.1 to 0.5."""
    rng = np.random.default_rng(dimension)
    means = rng.normal(size=(5, dimension)) * 1.5
    return means, rng.uniform(0.1, 0.5, size=(5, dimension)) ** 2, np.array([0.1, 0.15, 0.2, 0.25, 0.3])


def mixture_problem(dimension: int, process_name: str, *, points: int, samples: int) -> Problem:
    """A mixture in so many dimensions; the start is drawn from the exact marginal at t_max."""
    sde, parameters = PROCESSES[process_name](), mixture_parameters(dimension)
    with jax.enable_x64(True):
        exact = sdelab.exact.GaussianMixture(*parameters)
        start, first, second = (
            exact.diffused(sde, t).sample(jax.random.key(KEY + i), samples)
            for i, t in enumerate((sde.t_max, sde.t_min, sde.t_min))
        )
        end = flow_end(sde, exact.score(sde), None, start[:points])
    mixture = sdelab.exact.GaussianMixture(*(jnp.asarray(value, jnp.float32) for value in parameters))
    name = f"mixture {dimension}-D"
    arrays = (np.asarray(value, np.float32) for value in (start, end, first, second))
    x_T, end, first, second = arrays
    return Problem(name, process_name, sde, mixture.score(sde), None, x_T, end, first, second)


def trained_problem(workdir: Path, *, points: int, samples: int) -> Problem:
    """The network of a run on its own process, from the prior; the samples are its training data, perturbed to t_min.

    Its flow is solved in float64 as finely as the mixtures'; with images of ten kinds, all kinds are asked for in turn.
    """
    run = load_run(workdir)
    data = build_dataset(run.config)
    images = data.encode(data.train)
    points, samples = min(points, NETWORK_POINTS), min(samples, len(images) // 2)
    rows = np.random.default_rng(KEY).permutation(len(images))[: 2 * samples]
    perturbed, _ = run.sde.perturb(jax.random.key(KEY + 1), jnp.asarray(images[rows]), run.sde.t_min)
    first, second = np.split(np.asarray(perturbed), 2)
    x_T = np.asarray(run.sde.prior_sample(jax.random.key(KEY), (samples, *run.event_shape)))
    condition = np.arange(samples, dtype=np.int32) % data.classes if run.conditional else None
    with jax.enable_x64(True):
        chosen = None if condition is None else condition[:points]
        end = flow_end(run.sde, run.score, chosen, jnp.asarray(x_T[:points], float), NETWORK_STEPS)
    arrays = x_T, np.asarray(end, np.float32), first, second
    return Problem(PROBLEMS[2], type(run.sde).__name__, run.sde, run.score, condition, *arrays)


def flow_end(
    sde: sdelab.AbstractAffineSDE, score: Any, condition: Any, x_T: jax.Array, steps: int = REFERENCE_STEPS
) -> jax.Array:
    """The exact flow's end at t_min, in the precision of `x_T`."""
    flow = sdelab.ProbabilityFlow(sde, score, condition)
    return walk(diffrax.Dopri8(), flow, x_T, grids.log_snr(sde, steps))
