"""One table of numbers about a trained score."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from sdelab._typing import PRNGKey
from sdelab.data import Dataset, GreyLevels
from sdelab.evaluate.batched import PATIENCE, Work, by_row, complete, laid_out, split, split_keys
from sdelab.evaluate.classifier import LabelClassifier
from sdelab.evaluate.distances import energy_distance, sliced_wasserstein
from sdelab.evaluate.parts import AbstractParts, InMemory
from sdelab.likelihood import AbstractDivergence, ExactTrace, Hutchinson, code_length, log_prob
from sdelab.reverse import ProbabilityFlow
from sdelab.train.placement import AbstractPlacement
from sdelab.train.placement_one import OneDevice


def affordable_divergence(event_shape: tuple[int, ...]) -> AbstractDivergence:
    """The exact trace for points, Hutchinson's estimate for what has more than 16 dimensions."""
    return ExactTrace() if np.prod(event_shape) <= 16 else Hutchinson()


def held_out_rows(dataset: Dataset, count: int) -> np.ndarray:
    """Evenly spaced rows of the held-out set, at most `count`: a set that is sorted by something has its share of all."""
    total = len(dataset.held_out)
    if not total:
        raise ValueError(f"{dataset.name} has no held-out samples to judge by; accepted: data with held_out > 0.")
    return evenly_spaced(total, count)


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """At most `count` of `total` rows, evenly spaced from the first on."""
    return np.arange(min(count, total)) * total // min(count, total)


def code_lengths(
    key: PRNGKey,
    process: ProbabilityFlow,
    dataset: Dataset,
    chosen: np.ndarray,
    *,
    placement: AbstractPlacement,
    **arguments: Any,
) -> Work:
    r"""The work of coding the held-out samples `chosen`: `density` and `residual` in nats, the first alone for points.

    `process.condition`, if any, has one entry for each of them. `arguments` as in `log_prob`. Errors: a solve that does not arrive.
    """
    values, condition = dataset.held_out[chosen], process.condition
    arguments = {"divergence": affordable_divergence(dataset.event_shape), **arguments}
    flow = laid_out(placement, process.given(None))
    scaling = dataset.scaling

    def work(rows: np.ndarray) -> dict[str, Array | None]:
        given = flow if condition is None else flow.given(split(placement, by_row(rows, condition)))
        if isinstance(scaling, GreyLevels):
            keys = split_keys(placement, jax.random.fold_in(key, 0), rows)  # those of the first draw of `bits_per_dim`
            scale = {"levels": scaling.levels, "low": scaling.low, "high": scaling.high}
            grey = split(placement, values[rows].astype(np.int32))
            density, residual = code_length(keys, given, grey, **scale, **arguments)
            return {"density": density, "residual": residual}
        x = split(placement, dataset.encode(values[rows]))
        return {"density": -log_prob(given, x, key=split_keys(placement, key, rows), **arguments)}

    return work


def held_out_bits(
    key: PRNGKey,
    process: ProbabilityFlow,
    dataset: Dataset,
    count: int,
    *,
    placement: AbstractPlacement | None = None,
    parts: AbstractParts | None = None,
    patience: float = PATIENCE,
    **arguments: Any,
) -> dict[str, float]:
    r"""Bits/dim of `count` held-out samples, those of `held_out_rows`, with the standard error over them.

    Images are dequantised by the data set's own number of grey levels, and the way from `t_min` to the data counts (the
    residual of `bits_per_dim`); for points it is $-\log_2 p_{t_{min}}(x)/d$. Each counts once, whatever the batch and devices.
    `process.condition`, if any, has one entry for each of them. `placement`: the devices (default: the first); `parts`, of
    as many rows, which its caller has entered: the batches that are done already, and where those to come are kept (default:
    256 at a time, in memory); `patience` as in `complete`. `arguments` as in `log_prob`. Errors: `count` < 2.
    """
    if count < 2:
        raise ValueError(f"count = {count} is not accepted; a standard error needs an integer >= 2.")
    placement = OneDevice() if placement is None else placement
    chosen = held_out_rows(dataset, count)
    parts = InMemory(len(chosen), 256) if parts is None else parts
    work = code_lengths(key, process, dataset, chosen, placement=placement, **arguments)
    complete(parts, work, placement, unit="likelihood", patience=patience)
    nats = sum(
        np.asarray(found, np.float64) for name in ("density", "residual") if (found := parts.read(name)) is not None
    )
    offset = dataset.scaling.offset_bits if isinstance(dataset.scaling, GreyLevels) else 0.0
    each = np.asarray(nats) / (np.log(2.0) * np.prod(dataset.event_shape)) + offset
    error = float(each.std(ddof=1) / np.sqrt(len(each)))
    return {"bits_per_dim": float(each.mean()), "bits_per_dim_error": error, "bits_per_dim_count": len(each)}


def sample_distances(key: PRNGKey, samples: Any, dataset: Dataset) -> dict[str, float]:
    """Sliced Wasserstein and energy distance of samples to held-out data, beside those of as many training data.

    The second is what a perfect model would have, up to the scatter of the sets.
    """
    held_out = dataset.encode(dataset.held_out)
    rows = np.linspace(0, len(dataset.train) - 1, min(len(samples), len(dataset.train))).astype(int)
    train = dataset.encode(dataset.train[rows])
    return {
        "sliced_wasserstein": sliced_wasserstein(key, samples, held_out),
        "sliced_wasserstein_train": sliced_wasserstein(key, train, held_out),
        "energy_distance": energy_distance(samples, held_out),
        "energy_distance_train": energy_distance(train, held_out),
    }


def label_agreement(samples: Any, labels: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """Accuracy of a classifier of real data on held-out data, and its agreement with the labels asked of the samples."""
    if dataset.train_labels is None or dataset.held_out_labels is None:
        raise ValueError(f"{dataset.name} has no labels to agree with.")
    rows = evenly_spaced(len(dataset.train), LabelClassifier.LIMIT)  # a set may be sorted by its labels
    classifier = LabelClassifier(dataset.encode(dataset.train[rows]), dataset.train_labels[rows])
    return {
        "classifier_accuracy": classifier.agreement(dataset.encode(dataset.held_out), dataset.held_out_labels),
        "classifier_agreement": classifier.agreement(samples, labels),
    }
