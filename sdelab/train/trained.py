"""From the directory of a run back to objects."""

import dataclasses
from pathlib import Path
from typing import Any

from sdelab._checks import unknown_name
from sdelab.data.scaling import SCALINGS, AbstractScaling
from sdelab.score import NetworkScore
from sdelab.sde import AbstractAffineSDE
from sdelab.train.build import build_score, build_sde, is_conditional, named
from sdelab.train.checkpoint import newest_sound_step, read_record, read_state

WEIGHTS = {"averaged": "ema", "raw": "params"}
"""Which weights of a run, and their names in its state."""


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run as its newest sound checkpoint describes it; `score` has the weights of the kind `weights`.

    `conditional` says whether the score takes labels; `event_shape` is that of one sample; `record` is what is written
    beside the arrays, the configuration in it.
    """

    record: dict[str, Any]
    step: int
    sde: AbstractAffineSDE
    score: NetworkScore
    event_shape: tuple[int, ...]
    conditional: bool
    weights: str = "averaged"

    @property
    def config(self) -> dict[str, Any]:
        """The configuration."""
        return self.record["config"]

    @property
    def scaling(self) -> AbstractScaling:
        """The scaling of the data that the run was trained on. Errors: one that is not of `sdelab.data`."""
        return named("scaling", SCALINGS, self.record["scaling"])


def load_run(workdir: Path | str, weights: str = "averaged") -> TrainedRun:
    """The run in `workdir`, by its newest sound checkpoint, with weights of a kind of `WEIGHTS`. The data set is not needed.

    Errors: `FileNotFoundError` if there is no run, or no sound checkpoint in it; an unknown kind of weights.
    """
    if weights not in WEIGHTS:
        raise unknown_name("kind of weights", weights, WEIGHTS)
    workdir, name = Path(workdir), WEIGHTS[weights]
    if not (workdir / "checkpoints").is_dir():
        raise FileNotFoundError(f"no run in {workdir}: it has no checkpoints. `sdelab train` makes one.")
    directory = newest_sound_step(workdir / "checkpoints")
    record = read_record(directory)
    config, event_shape = record["config"], tuple(record["data"]["event_shape"])
    sde = build_sde(config)
    score = build_score(config, sde, event_shape)
    params = read_state(directory, {"state": {name: score.params}})["state"][name]
    return TrainedRun(
        record=record,
        step=record["step"],
        sde=sde,
        score=dataclasses.replace(score, params=params),
        event_shape=event_shape,
        conditional=is_conditional(config),
        weights=weights,
    )
