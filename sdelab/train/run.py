"""How a run goes on, and on what: what may change when it is resumed."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sdelab._checks import check_count, check_positive, unknown_name
from sdelab.train.placement import AbstractPlacement
from sdelab.train.placement_mesh import DataParallel, FullySharded
from sdelab.train.placement_one import OneDevice
from sdelab.train.placement_pmap import ParallelMap

PLACEMENTS: dict[str, Callable[..., AbstractPlacement]] = {
    "data": DataParallel,
    "fsdp": FullySharded,
    "jit": OneDevice,
    "pmap": ParallelMap,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """Section `run`: how long, how often and on what. Nothing here changes the numbers by more than rounding: a resumed
    run may differ in it.

    Fields: `placement`, a name of `PLACEMENTS`; `pieces` of a batch that are computed in turn, for less memory;
    `steps_per_dispatch`, in one call of the device; `patience`, seconds without a step after which a process of several
    ends the run; `snapshot_every`, steps from one snapshot of the power averages to the next (0: none).
    """

    steps: int
    log_every: int = 50
    checkpoint_every: int = 1000
    keep: int = 3
    tensorboard: bool = False
    placement: str = "jit"
    pieces: int = 1
    steps_per_dispatch: int = 1
    patience: float | int = 50.0
    snapshot_every: int = 0

    def __post_init__(self):
        check_count(steps=self.steps, log_every=self.log_every, checkpoint_every=self.checkpoint_every, keep=self.keep)
        check_count(pieces=self.pieces, steps_per_dispatch=self.steps_per_dispatch)
        check_positive(patience=self.patience)
        if self.snapshot_every != 0:
            check_count(snapshot_every=self.snapshot_every)
        if self.placement not in PLACEMENTS:
            raise unknown_name("placement", str(self.placement), PLACEMENTS)
        if self.keep < 2:
            raise ValueError(f"keep = {self.keep} is not accepted; keep must be an integer >= 2.")
        if not isinstance(self.tensorboard, bool):
            raise TypeError(f"tensorboard = {self.tensorboard!r} is not accepted; accepted: True or False.")


def build_placement(run: Run, batch_size: int, devices: Sequence[Any] | None = None) -> AbstractPlacement:
    """The placement of section `run`, on the given devices, or on those that there are.

    Errors: a batch size that it does not divide.
    """
    try:
        placement = PLACEMENTS[run.placement](devices)
        placement.check_batch_size(batch_size, run.pieces)
    except ValueError as error:
        raise ValueError(f"config.run: placement = {run.placement!r}: {error}") from error
    return placement
