"""`sdelab.load(workdir)`, for notebooks."""

from pathlib import Path

from sdelab.score import NetworkScore
from sdelab.sde import AbstractAffineSDE
from sdelab.train import load_run


def load(workdir: Path | str, *, step: int | None = None) -> tuple[AbstractAffineSDE, NetworkScore]:
    """The process and the score of a run, with the averaged weights of its newest sound checkpoint, or that of a step.

    `score(x, t)`, or `score(x, t, label)` with integer labels `(batch,)` if the run was conditional. The data set is
    not needed. `sdelab.train.best_step(workdir)` is the step of the lowest loss.
    Errors: `FileNotFoundError` if there is no run, or no sound checkpoint in it; a step without one.
    """
    run = load_run(workdir, step=step)
    return run.sde, run.score
