"""What a person looks at while a run trains: samples of the averaged weights, and the loss by time.

Both are pure functions of the weights. The noise that samples start from, the held-out examples and the noise on them are the
same at every step, so that one picture compares with the next, and on every placement, because each has its own key. The
keys of training are not touched.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdelab import grids
from sdelab._host import on_host
from sdelab.data import Dataset
from sdelab.losses import AbstractWeighting, denoising_loss
from sdelab.losses.sample_keys import normal_of
from sdelab.reverse import ProbabilityFlow
from sdelab.sampling import sample
from sdelab.score import NetworkScore
from sdelab.solvers import DPMSolverPlusPlus2M, Tweedie

IMAGES, POINTS, STEPS = 64, 1024, 20
"""Samples of a picture, and steps of the solver."""

EXAMPLES, TIMES = 64, 24
"""Held-out data, and times at which their loss is taken."""

_STREAM = 2
"""Folded into the seed's key: 0 is the network's, 1 that of training."""


class SampleGrid:
    """Samples of given weights, from the same noise at every call: DPM-Solver++(2M) in 20 steps of equal log-SNR.

    About 64 images, or 1024 points, in rows of `columns`: one column for each of the `classes`, if there are 2 to 16 of them;
    otherwise eight, of each class in turn. `classes` = 0 is a network without labels. At most `at_once` are computed at a
    time.
    """

    def __init__(self, score: NetworkScore, event_shape: tuple[int, ...], *, classes: int, seed: int, at_once: int):
        self.columns = classes if 2 <= classes <= 16 else 8
        self.count = self.columns * ((IMAGES if len(event_shape) > 1 else POINTS) // self.columns)
        self._chunk = largest_divisor(self.count, at_once)
        self._draw = jax.jit(_sampler(score, event_shape, classes, seed))

    def __call__(self, params: Any) -> np.ndarray:
        """`(count, *event)`, on the host of every process; `params` are at rest, on any placement."""
        rows = np.arange(self.count, dtype=np.int32).reshape(-1, self._chunk)
        return np.concatenate([on_host(self._draw(params, chunk)) for chunk in rows])


class LossByTime:
    r"""Denoising score matching of held-out examples at each of `times`, which have equal distances in log-SNR.

    With the weighting of the run's loss, of given weights, without dropout or augmentation. Data without a held-out part are judged
    by examples of the training part. At most `at_once` examples are computed at a time.
    """

    def __init__(
        self,
        score: NetworkScore,
        dataset: Dataset,
        *,
        weighting: AbstractWeighting,
        conditional: bool,
        seed: int,
        at_once: int,
    ):
        values, labels = dataset.held_out, dataset.held_out_labels
        if not len(values):
            values, labels = dataset.train, dataset.train_labels
        count = min(EXAMPLES, len(values))
        rows = np.arange(count) * len(values) // count  # a set that is sorted by something has its share of all
        examples = {"x": dataset.encode(values[rows]), "index": np.arange(count, dtype=np.int32)}
        if conditional and labels is not None:
            examples["label"] = labels[rows]
        chunk = largest_divisor(count, at_once)
        self._chunks = [{k: v[i : i + chunk] for k, v in examples.items()} for i in range(0, count, chunk)]
        self.times = grids.log_snr(score.sde, TIMES - 1)
        self._losses = jax.jit(_losses_at(self.times, score, weighting, seed))

    def __call__(self, params: Any) -> np.ndarray:
        """The mean at each time, `(times,)`, on the host of every process; `params` are at rest, on any placement."""
        losses = [on_host(self._losses(params, chunk)) for chunk in self._chunks]
        return np.concatenate(losses, axis=1).mean(axis=1, dtype=np.float64)


def largest_divisor(count: int, limit: int) -> int:
    """The largest divisor of `count` that is at most `limit` >= 1."""
    return max(n for n in range(1, min(count, limit) + 1) if count % n == 0)


def _sampler(
    score: NetworkScore, event_shape: tuple[int, ...], classes: int, seed: int
) -> Callable[[Any, jax.Array], jax.Array]:
    grid = grids.log_snr(score.sde, STEPS)

    def draw(params: Any, rows: jax.Array) -> jax.Array:
        process = ProbabilityFlow(
            score.sde, dataclasses.replace(score, params=params), condition=rows % classes if classes else None
        )
        keys = _keys(seed, 0, rows)
        shape = (rows.shape[0], *event_shape)
        return sample(keys, process, shape, solver=DPMSolverPlusPlus2M(), grid=grid, finish=Tweedie())

    return draw


def _losses_at(
    times: np.ndarray, score: NetworkScore, weighting: AbstractWeighting, seed: int
) -> Callable[[Any, Any], jax.Array]:
    def losses(params: Any, chunk: Any) -> jax.Array:
        model, x0 = dataclasses.replace(score, params=params), jnp.asarray(chunk["x"])
        eps = normal_of(_keys(seed, 1, chunk["index"]), x0)

        def at(t: jax.Array) -> jax.Array:
            return denoising_loss(model, score.sde, x0, t, eps, weighting=weighting, condition=chunk.get("label"))

        return jax.lax.map(at, jnp.asarray(times, x0.dtype))  # one time after another: the memory of one

    return losses


def _keys(seed: int, stream: int, index: Any) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), stream)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)
