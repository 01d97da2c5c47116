"""`sdelab.load(workdir)`, for notebooks."""

from pathlib import Path

from sdelab.score import NetworkScore
from sdelab.sde import AbstractAffineSDE
from sdelab.train import load_run


def load(workdir: Path | str) -> tuple[AbstractAffineSDE, NetworkScore]:
    """The process and the score of a run, with the averaged weights of its newest sound checkpoint.

    `score(x, t)`, or `score(x, t, label)` with integer labels `(batch,)` if the run was conditional. The data set is
    not needed. Errors: `FileNotFoundError` if there is no run, or no sound checkpoint in it.
    """
    run = load_run(workdir)
    return run.sde, run.score
