"""How a run goes on, and on what: what may change when it is resumed."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sdelab._checks import check_count, check_positive, unknown_name
from sdelab.train.placement import AbstractPlacement
from sdelab.train.placement_mesh import DataParallel, FullySharded
from sdelab.train.placement_one import OneDevice
from sdelab.train.placement_pmap import ParallelMap
from sdelab.train.retention import Best
from sdelab.train.step import METRICS

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

    Fields: `keep`, the newest checkpoints that stay, and `keep_best`, those beside them with the lowest `best_metric` (0:
    none), see `Best`; `placement`, a name of `PLACEMENTS`; `pieces` of a batch that are computed in turn, for less memory;
    `steps_per_dispatch`, in one call of the device; `patience`, seconds without a step after which a process of several
    ends the run; `snapshot_every`, steps from one snapshot of the power averages to the next (0: none); `sample_every`, steps
    from one picture of samples, and of the loss by time, to the next (0: none); `tensorboard` and `wandb`, further logs;
    `prefetch`, calls of the device whose batches are made ahead, each by one of `prefetch_threads`.
    """

    steps: int
    log_every: int = 50
    checkpoint_every: int = 1000
    keep: int = 3
    keep_best: int = 0
    best_metric: str = "loss"
    tensorboard: bool = False
    placement: str = "jit"
    pieces: int = 1
    steps_per_dispatch: int = 1
    patience: float | int = 50.0
    snapshot_every: int = 0
    prefetch: int = 2
    prefetch_threads: int = 1
    sample_every: int = 0
    wandb: bool = False

    def __post_init__(self):
        check_count(steps=self.steps, log_every=self.log_every, checkpoint_every=self.checkpoint_every, keep=self.keep)
        check_count(pieces=self.pieces, steps_per_dispatch=self.steps_per_dispatch)
        check_count(prefetch=self.prefetch, prefetch_threads=self.prefetch_threads)
        check_positive(patience=self.patience)
        if self.prefetch_threads > self.prefetch:
            raise ValueError(
                f"prefetch_threads = {self.prefetch_threads} is not accepted with prefetch = {self.prefetch}: no more than "
                "so many batches are in the making."
            )
        self._check_best()
        for name in ("snapshot_every", "sample_every"):
            if getattr(self, name) != 0:
                check_count(**{name: getattr(self, name)})
        if self.placement not in PLACEMENTS:
            raise unknown_name("placement", str(self.placement), PLACEMENTS)
        if self.keep < 2:
            raise ValueError(f"keep = {self.keep} is not accepted; keep must be an integer >= 2.")
        for name in ("tensorboard", "wandb"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} = {getattr(self, name)!r} is not accepted; accepted: True or False.")

    @property
    def periods(self) -> tuple[int, ...]:
        """Numbers of steps after which the host has something to do."""
        periods = (self.log_every, self.checkpoint_every, self.snapshot_every, self.sample_every)
        return tuple(period for period in periods if period)

    @property
    def best(self) -> Best | None:
        """What chooses the checkpoints that stay for their metric; None for none."""
        return Best(self.best_metric, self.keep_best) if self.keep_best else None

    def _check_best(self) -> None:
        if self.best_metric not in METRICS:
            raise unknown_name("best_metric", str(self.best_metric), METRICS)
        if self.keep_best == 0:
            return
        check_count(keep_best=self.keep_best)
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every = {self.checkpoint_every} is not accepted with keep_best = {self.keep_best}: it must be a "
                f"multiple of log_every = {self.log_every}, since the metric of a checkpoint is that of a whole row."
            )


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
