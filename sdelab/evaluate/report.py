"""One table of numbers about a trained score."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from sdelab._broadcast import event_size
from sdelab._typing import PRNGKey
from sdelab.data import Dataset, GreyLevels
from sdelab.evaluate.classifier import LabelClassifier
from sdelab.evaluate.distances import energy_distance, sliced_wasserstein
from sdelab.likelihood import AbstractDivergence, ExactTrace, Hutchinson, bits_per_dim, log_prob
from sdelab.reverse import ProbabilityFlow


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


def held_out_bits(
    key: PRNGKey, process: ProbabilityFlow, dataset: Dataset, count: int, **arguments: Any
) -> dict[str, float]:
    r"""Bits/dim of `count` held-out samples, those of `held_out_rows`, with the standard error over them.

    Images are dequantised by the data set's own number of grey levels, and the way from `t_min` to the data counts (the
    residual of `bits_per_dim`); for points it is $-\log_2 p_{t_{min}}(x)/d$.
    `process.condition`, if any, has one entry for each of them. `arguments` as in `log_prob`. Errors: `count` < 2.
    """
    if count < 2:
        raise ValueError(f"count = {count} is not accepted; a standard error needs an integer >= 2.")
    values = dataset.held_out[held_out_rows(dataset, count)]
    arguments = {"divergence": affordable_divergence(dataset.event_shape), **arguments}
    if isinstance(dataset.scaling, GreyLevels):
        scaling = dataset.scaling
        bits = bits_per_dim(
            key,
            process,
            values.astype(np.int32),
            levels=scaling.levels,
            low=scaling.low,
            high=scaling.high,
            **arguments,
        )
        return {"bits_per_dim": bits.mean, "bits_per_dim_error": bits.standard_error, "bits_per_dim_count": len(values)}
    log_p = np.asarray(log_prob(process, jnp.asarray(dataset.encode(values)), key=key, **arguments), np.float64)
    each = -log_p / (np.log(2.0) * event_size(values.shape))
    error = float(each.std(ddof=1) / np.sqrt(len(each)))
    return {"bits_per_dim": float(each.mean()), "bits_per_dim_error": error, "bits_per_dim_count": len(values)}


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
