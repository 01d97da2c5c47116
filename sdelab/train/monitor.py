"""Every so often, what a person looks at: drawn, and given to the log."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sdelab.data import Dataset, GreyLevels
from sdelab.losses import SigmaSquared
from sdelab.train.build import Experiment
from sdelab.train.distributed import is_main
from sdelab.train.log import JsonLines, Log, Pixels, read_json_lines
from sdelab.train.looks import LossByTime, SampleGrid
from sdelab.train.objective import build_parts
from sdelab.train.placement import AbstractPlacement
from sdelab.train.window import Carry, NonFiniteMetric, read_window

LOSS_BY_TIME = "loss_by_time.jsonl"

REFERENCE = 2000
"""Points of the data that are drawn under those of the model."""


class Monitor(contextlib.AbstractContextManager[Any]):
    """Samples of the averaged weights and their loss by time, as the pictures `samples` and `loss_by_time` of the log.

    Points of more than two dimensions have no picture. The numbers of the loss go to `loss_by_time.jsonl` in `workdir`; rows
    after `resume_step`, which the resumed run writes again, are dropped. All processes compute, and process 0 draws.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        experiment: Experiment,
        placement: AbstractPlacement,
        log: Log,
        workdir: Path,
        resume_step: int,
    ):
        score, batch_size, classes = experiment.score, experiment.optim.batch_size, config["model"].get("classes", 0)
        weighting = build_parts(config["loss"], score, batch_size).get("weighting", SigmaSquared())
        at_once = batch_size // (placement.shares * experiment.run.pieces)  # no more than a step has on a device
        settings = {"seed": config["seed"], "at_once": at_once}
        self._dataset, self._log, self._path = experiment.dataset, log, workdir / LOSS_BY_TIME
        self._samples = SampleGrid(score, self._dataset.event_shape, classes=classes, **settings)
        self._losses = LossByTime(score, self._dataset, weighting=weighting, conditional=classes > 0, **settings)
        self._rows = JsonLines(self._path, resume_step=resume_step) if is_main() else None

    def write(self, step: int, carry: Carry) -> None:
        """Of the carry, at rest. Errors: `NonFiniteMetric`."""
        read_window(carry["window"])
        params = carry["state"]["ema"]
        with self._log.aside():
            x, losses = self._samples(params), self._losses(params)
            if not np.all(np.isfinite(losses)):
                raise NonFiniteMetric(
                    f"loss by time of the averaged weights not finite at step {step}; training stopped."
                )
            if self._rows is not None:
                self._rows.write(step, {"t": self._losses.times.tolist(), "loss": losses.tolist()})
                self._show(step, x)

    def _show(self, step: int, x: np.ndarray) -> None:
        from sdelab import plot  # loads matplotlib: only where something is drawn

        picture = picture_of(x, self._dataset, self._samples.columns)
        if picture is not None:
            self._log.show(step, "samples", picture)
        self._log.show(step, "loss_by_time", plot.pixels(plot.loss_by_time(read_json_lines(self._path))))

    def __exit__(self, *error: Any) -> None:
        if self._rows is not None:
            self._rows.__exit__(*error)


def open_monitor(
    config: Mapping[str, Any],
    experiment: Experiment,
    placement: AbstractPlacement,
    log: Log,
    workdir: Path,
    resume_step: int,
) -> contextlib.AbstractContextManager[Monitor | None]:
    """The monitor of a run that asks for one by `sample_every`, or None."""
    if not experiment.run.sample_every:
        return contextlib.nullcontext()
    return Monitor(config, experiment, placement, log, workdir, resume_step)


def picture_of(x: np.ndarray, dataset: Dataset, columns: int) -> Pixels | None:
    """Images in rows of `columns`, points of the plane over those of the data; None for what has no picture."""
    from sdelab import plot

    scaling = dataset.scaling
    if x.ndim == 4 and x.shape[-1] in (1, 3) and isinstance(scaling, GreyLevels):
        return plot.tile(x, columns=columns, low=scaling.low, high=scaling.high)
    if x.shape[1:] == (2,):
        data = dataset.held_out if len(dataset.held_out) else dataset.train
        return plot.pixels(plot.scatter(x, reference=dataset.encode(data[:REFERENCE])))
    return None
