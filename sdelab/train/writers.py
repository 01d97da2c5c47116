"""The writers that a run's section `run` asks for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdelab.train.log import AbstractWriter, JsonLines, PictureFiles, TensorBoard, summary_writer
from sdelab.train.run import Run
from sdelab.train.weights_and_biases import WeightsAndBiases, wandb_module


def check_writers(run: Run) -> None:
    """The packages of the writers are there. Errors: `MissingExtra`."""
    if run.tensorboard:
        summary_writer()
    if run.wandb:
        wandb_module()


def open_writers(workdir: Path, resume_step: int, run: Run, config: Mapping[str, Any]) -> Iterator[AbstractWriter]:
    """The writers of a run that goes on after `resume_step`, one after another: each is for the caller to close."""
    yield JsonLines(workdir / "metrics.jsonl", resume_step=resume_step)
    yield PictureFiles(workdir / "pictures", resume_step=resume_step)
    if run.tensorboard:
        yield TensorBoard(workdir / "tensorboard", resume_step=resume_step)
    if run.wandb:
        yield WeightsAndBiases(workdir, config)
