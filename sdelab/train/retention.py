"""Which checkpoints of a run stay."""

import dataclasses
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from sdelab._checks import check_count

REMOVED = ".removed."
"""How the names of checkpoints begin that are being deleted: a kill meanwhile leaves no half of one that looks whole."""


@dataclasses.dataclass(frozen=True)
class Best:
    """The `count` >= 1 checkpoints with the lowest `metric`, of equal ones the newest.

    The metric of a checkpoint is the mean in the row of the log that ends at its step. One that was written between two
    rows, when the run was asked to stop or came to its end, has none and is not among the best.
    """

    metric: str = "loss"
    count: int = 1

    def __post_init__(self):
        check_count(count=self.count)

    def __call__(self, metrics: Mapping[int, Mapping[str, float]]) -> list[int]:
        """Their steps, from the best on; `metrics` are those of each step."""
        having = [step for step, row in metrics.items() if self.metric in row]
        return sorted(having, key=lambda step: (metrics[step][self.metric], -step))[: self.count]


def remove(directory: Path, steps: Collection[int]) -> None:
    """Deletes steps, and what is left of earlier deletions."""
    for step in steps:
        (directory / str(step)).rename(directory / f"{REMOVED}{step}")
    for path in directory.glob(f"{REMOVED}*"):
        shutil.rmtree(path)
