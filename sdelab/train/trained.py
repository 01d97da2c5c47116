"""From the directory of a run back to objects."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdelab._checks import unknown_name
from sdelab.data.scaling import SCALINGS, AbstractScaling
from sdelab.score import NetworkScore
from sdelab.sde import AbstractAffineSDE
from sdelab.train.build import build_score, build_sde, is_conditional, named
from sdelab.train.checkpoint import (
    Checkpoints,
    best_sound_step,
    newest_sound_step,
    read_record,
    read_state,
    sound_step,
)
from sdelab.train.ema_snapshots import MAIN, Reconstruction
from sdelab.train.manifest import MANIFEST
from sdelab.train.placement import AbstractPlacement

MADE = "averages"
"""The folder of a run that holds the averages made after it."""

WEIGHTS = {"averaged": "ema", MAIN: "ema", "raw": "params"}
"""Which weights every run has, and their names in its state. It may have further averages."""


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run as one of its checkpoints describes it; `score` has the weights that `weights` names.

    `conditional` says whether the score takes labels; `event_shape` is that of one sample; `record` is what is written
    beside the arrays, the configuration in it; `digest`, the SHA-256 of the checkpoint's manifest, which has those of its
    files, says which arrays these are.
    """

    record: dict[str, Any]
    step: int
    sde: AbstractAffineSDE
    score: NetworkScore
    event_shape: tuple[int, ...]
    conditional: bool
    weights: str = "averaged"
    digest: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration."""
        return self.record["config"]

    @property
    def scaling(self) -> AbstractScaling:
        """The scaling of the data that the run was trained on. Errors: one that is not of `sdelab.data`."""
        return named("scaling", SCALINGS, self.record["scaling"])


def load_run(
    workdir: Path | str,
    weights: str = "averaged",
    *,
    step: int | None = None,
    placement: AbstractPlacement | None = None,
) -> TrainedRun:
    """The run in `workdir`, by the checkpoint of a step, or its newest sound one. The data set is not needed.

    `weights`: "averaged", the main average (or its name, "ema"); "raw"; the name of one of the config's `averages`, or of one that
    `sdelab ema` made. `step` is among those that stay, see `Run`; `best_step` is one. `placement` says where the weights lie: each
    device reads its part (default: all on the first device). Errors: `FileNotFoundError` if there is no
    run, or no sound checkpoint in it; unknown weights; a step without a checkpoint.
    """
    checkpoints = _checkpoints(workdir)
    made = [path.name for path in (checkpoints.parent / MADE).glob("*") if path.is_dir()]
    folder = checkpoints.parent / MADE / weights if weights in made else checkpoints
    directory = newest_sound_step(folder) if step is None else sound_step(folder, step)
    record = read_record(directory)
    config, event_shape = record["config"], tuple(record["data"]["event_shape"])
    sde = build_sde(config)
    score = build_score(config, sde, event_shape)
    template = score.params if placement is None else placement.template(score.params)
    params = _read_weights(directory, template, weights, made, config)
    return TrainedRun(
        record=record,
        step=record["step"],
        sde=sde,
        score=dataclasses.replace(score, params=params),
        event_shape=event_shape,
        conditional=is_conditional(config),
        weights=weights,
        digest=hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest(),
    )


def best_step(workdir: Path | str, metric: str | None = None) -> int:
    """The step of the checkpoint in `workdir` with the lowest `metric`, by default the run's `best_metric`: see `Best`.

    It is the best of the whole run if the run keeps the best, and else of those that are left. Errors: `FileNotFoundError` if
    there is no run, or no sound checkpoint in it that has the metric.
    """
    checkpoints = _checkpoints(workdir)
    if metric is None:
        metric = read_record(newest_sound_step(checkpoints))["config"]["run"].get("best_metric", "loss")
    return int(best_sound_step(checkpoints, str(metric)).name)


def save_average(workdir: Path, name: str, made: Reconstruction) -> Path:
    """Keeps an average in the run's folder, for `load_run(workdir, name)`; returns its directory.

    Errors: a name that an average of the run has.
    """
    record = read_record(newest_sound_step(Path(workdir) / "checkpoints"))
    if not name.replace(".", "_").isidentifier() or name in (MAIN, *record["config"].get("averages", {})):
        raise ValueError(
            f"name = {name!r} is not accepted; accepted: letters, digits, _ and ., and no name of an average that the run keeps."
        )
    directory = Path(workdir) / MADE / name
    if directory.exists():
        raise FileExistsError(f"{directory} is there already; accepted: another name, or none there.")
    with Checkpoints(directory, keep=None) as steps:
        steps.save(made.step, {"state": {"ema": made.params}}, {**record, "step": made.step})
    return directory


def _checkpoints(workdir: Path | str) -> Path:
    directory = Path(workdir) / "checkpoints"
    if not directory.is_dir():
        raise FileNotFoundError(f"no run in {workdir}: it has no checkpoints. `sdelab train` makes one.")
    return directory


def _read_weights(directory: Path, params: Any, weights: str, made: list[str], config: Mapping[str, Any]) -> Any:
    """The weights of that name, from a checkpoint of the run or of an average made after it."""
    kept = config.get("averages", {})
    if weights in kept:
        return read_state(directory, {"state": {"averages": {weights: params}}})["state"]["averages"][weights]
    names = {**WEIGHTS, **dict.fromkeys(made, "ema")}
    if weights not in names:
        raise unknown_name("weights", weights, (*names, *kept))
    return read_state(directory, {"state": {names[weights]: params}})["state"][names[weights]]
