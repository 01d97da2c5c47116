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
    save: a resumed run asks for the step it is at. Several processes cut every batch into as many equal parts, in
    their order: together they have the batch that one process has, and another number of them goes on where they were.

    Fields: `dataset`; `batch_size` >= 1, over all devices of all processes; `seed` >= 0 of the order;
    `process_index` in [0, `process_count`), which divides `batch_size`.
    """

    dataset: Dataset
    batch_size: int
    seed: int = 0
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self):
        check_count(batch_size=self.batch_size, process_count=self.process_count)
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed} is not accepted; seed must be an integer >= 0.")
        if not 0 <= self.process_index < self.process_count:
            raise ValueError(
                f"process_index = {self.process_index} is not accepted; process_index must be an integer in "
                f"[0, {self.process_count - 1}]."
            )
        if self.batch_size % self.process_count:
            below = self.batch_size - self.batch_size % self.process_count
            sizes = [str(size) for size in (below, below + self.process_count) if size]
            raise ValueError(
                f"batch_size = {self.batch_size} cannot be divided among process_count = {self.process_count}; the "
                f"closest that can: {', '.join(sizes)}."
            )

    @property
    def positions(self) -> np.ndarray:
        """Positions in the whole batch of this process's samples, `batch_size / process_count` in a row."""
        local = self.batch_size // self.process_count
        return self.process_index * local + np.arange(local)

    def batch(self, step: int, positions: np.ndarray | None = None) -> dict[str, Any]:
        """`{"x": (local, *event) float32 in model units, "label": (local,) int32, "index": (local,) int32}`.

        The samples at the given positions of the whole batch, increasing; by default those of this process. `step` counts
        from 0. `label` is -1, no label, for a data set without classes. `index` is the position in the whole batch: the
        number that a sample's random keys are made from. Threads may ask for several batches at a time.
        """
        positions = self.positions if positions is None else positions
        rows, labels = self.rows(step, positions), self.dataset.train_labels
        return {
            "x": self.dataset.encode(self.dataset.train[rows]),
            "label": np.full(len(rows), -1, np.int32) if labels is None else labels[rows],
            "index": positions.astype(np.int32),
        }

    def rows(self, step: int, positions: np.ndarray | None = None) -> np.ndarray:
        """The rows of `dataset.train` that are at the positions of the batch of a step; see `batch`."""
        if step < 0:
            raise ValueError(f"step = {step} is not accepted; step must be an integer >= 0.")
        n = len(self.dataset.train)
        positions = self.positions if positions is None else positions
        epochs, offsets = np.divmod(step * self.batch_size + positions, n)
        orders = [_order(self.seed, epoch, n)[offsets[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)]
        return np.concatenate(orders)


@functools.lru_cache(maxsize=8)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return permutation(seed, epoch, n)
