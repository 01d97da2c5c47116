import dataclasses
import functools
from typing import Any

import numpy as np

from sdelab._checks import check_count
from sdelab.data.dataset import Dataset
from sdelab.data.permutation import permutation


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The training set as a stream of batches with random access: a batch is a pure function of `seed` and step.

    The stream is one permuted epoch after another, cut into batches; where `batch_size` does not divide the number
    of samples, a batch goes on into the next epoch. Every sample comes exactly once an epoch. There is no position to
    save: a resumed run asks for the step it is at.

    Fields: `dataset`; `batch_size` >= 1, over all devices; `seed` >= 0 of the order.
    """

    dataset: Dataset
    batch_size: int
    seed: int = 0

    def __post_init__(self):
        check_count(batch_size=self.batch_size)
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed} is not accepted; seed must be an integer >= 0.")

    def batch(self, step: int) -> dict[str, Any]:
        """`{"x": (batch, *event) float32 in model units, "label": (batch,) int32, "index": (batch,) int32}`.

        `step` counts from 0. `label` is -1, no label, for a data set without classes. `index` is the position in the
        batch, over all devices: the number that a sample's random keys are made from.
        """
        if step < 0:
            raise ValueError(f"step = {step} is not accepted; step must be an integer >= 0.")
        rows = self.rows(step)
        labels = self.dataset.train_labels
        return {
            "x": self.dataset.encode(self.dataset.train[rows]),
            "label": np.full(len(rows), -1, np.int32) if labels is None else labels[rows],
            "index": np.arange(len(rows), dtype=np.int32),
        }

    def rows(self, step: int) -> np.ndarray:
        """The rows of `dataset.train` that make up the batch of a step."""
        n = len(self.dataset.train)
        position = step * self.batch_size + np.arange(self.batch_size)
        epochs, offsets = np.divmod(position, n)
        orders = [_order(self.seed, epoch, n)[offsets[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)]
        return np.concatenate(orders)


@functools.lru_cache(maxsize=8)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return permutation(seed, epoch, n)
