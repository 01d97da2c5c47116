"""What is sampled: two mixtures, and the network of a run, each with the Gaussian of its data."""

from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import sdelab
from sdelab import geometry, grids
from sdelab.testing.order import walk
from sdelab.train import TrainedRun, load_run

REFERENCE_STEPS = 64  # of order 8, uniform in log-SNR, in float64


class Problem(NamedTuple):
    """A probability flow, starts at t_max, their exact ends at t_min, and the Gaussian that stands in for the data."""

    name: str
    flow: sdelab.ProbabilityFlow
    gaussian: sdelab.exact.Gaussian
    x_T: jax.Array
    truth: np.ndarray

    def time_of(self, level: float) -> float:
        """When the noise is `level` times as large as the data: sigma/alpha in their root mean square deviation."""
        sde = self.flow.sde
        assert isinstance(sde, sdelab.AbstractAffineSDE)
        spread = float(self.gaussian.covariance.trace(lambda value: value)) / self.gaussian.mean.size
        target = -2.0 * np.log(level) - np.log(spread)
        return float(sde.log_snr_inverse(np.clip(target, sde.log_snr(sde.t_max), sde.log_snr(sde.t_min))))


def mixture_problem(dimension: int, sde: sdelab.AbstractAffineSDE, samples: int) -> Problem:
    """Five components of standard deviations 0.1 to 0.5; starts from the exact marginal at t_max."""
    rng = np.random.default_rng(dimension)
    means, variances = 1.5 * rng.normal(size=(5, dimension)), rng.uniform(0.1, 0.5, size=(5, dimension)) ** 2
    parameters = (jnp.asarray(value, jnp.float32) for value in (means, variances, np.arange(2.0, 7.0)))
    mixture = sdelab.exact.GaussianMixture(*parameters)
    gaussian = sdelab.exact.Gaussian(mixture.mean(), mixture.covariance())
    x_T = mixture.diffused(sde, sde.t_max).sample(jax.random.key(0), samples)
    flow = sdelab.ProbabilityFlow(sde, mixture.score(sde))
    return Problem(f"mixture, {dimension}-D", flow, gaussian, x_T, exact_end(flow, x_T))


def trained_problem(workdir: Path, samples: int, rank: int, label: int) -> Problem:
    """The network of a run, from the prior, with a low-rank Gaussian of its training data; of one class if it has labels."""
    run = load_run(workdir)
    data, condition = training_data(run, samples, label)
    gaussian = geometry.low_rank_gaussian(data, rank)
    x_T = run.sde.prior_sample(jax.random.key(0), (samples, *run.event_shape))
    flow = sdelab.ProbabilityFlow(run.sde, run.score, condition)
    return Problem(f"network of {workdir.name}", flow, gaussian, x_T, exact_end(flow, x_T))


def training_data(run: TrainedRun, samples: int, label: int) -> tuple[np.ndarray, Any]:
    """The data in model units, and the condition for so many samples."""
    dataset = sdelab.data.load_dataset(run.config["data"]["name"])
    if not run.conditional:
        return dataset.encode(dataset.train), None
    if dataset.train_labels is None or label not in dataset.train_labels:
        raise ValueError(f"label = {label} is not accepted; {dataset.name} has {dataset.classes} classes.")
    return dataset.encode(dataset.train[dataset.train_labels == label]), np.full(samples, label, np.int32)


def exact_end(flow: sdelab.ProbabilityFlow, x_T: jax.Array) -> np.ndarray:
    """Where the flow carries the states at t_max, in float64."""
    assert isinstance(flow.sde, sdelab.AbstractAffineSDE)
    with jax.enable_x64(True):
        grid = grids.log_snr(flow.sde, REFERENCE_STEPS)
        return np.asarray(walk(diffrax.Dopri8(), flow, jnp.asarray(x_T, jnp.float64), grid))
