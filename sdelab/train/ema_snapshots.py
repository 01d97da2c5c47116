"""Averages kept at intervals during a run, and the average of any other width made of them afterwards."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sdelab.train.checkpoint import Checkpoints, read_record, read_state, sound_steps
from sdelab.train.ema import AbstractDecay, PowerDecay
from sdelab.train.ema_posthoc import coefficients
from sdelab.train.state import TrainState

SNAPSHOTS = "snapshots"
"""The folder of a run that holds one directory for each snapshot, in the format of a checkpoint."""

MAIN = "ema"
"""Name of the main average, which every run has."""


class Snapshots(contextlib.AbstractContextManager[Any]):
    """Stores the power-function averages among `decays`, by their names, after a step; all stay.

    A snapshot must be on disk before the checkpoint of its step, so that a resumed run lacks none: `finish` waits for it.
    """

    def __init__(self, workdir: Path, decays: Mapping[str, AbstractDecay]):
        self._widths = power_widths(decays)
        self._steps = Checkpoints(Path(workdir) / SNAPSHOTS, keep=None)
        self._steps.set_torn_aside()

    def save(self, step: int, state: TrainState, record: dict[str, Any]) -> None:
        """Begins to write the averages in `state`, at rest; a snapshot that is there stays as it is."""
        everything = {MAIN: state["ema"], **state.get("averages", {})}
        kept = {name: everything[name] for name in self._widths}
        self._steps.save(step, {"averages": kept}, {**record, "step": step, "sigma_rel": self._widths})

    def finish(self) -> None:
        """Waits until what was saved is on disk."""
        self._steps.finish()

    def __exit__(self, *error: Any) -> None:
        self._steps.__exit__(*error)


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """An average that was not kept.

    `params`, on the host; `step`, after which it ends; `sigma_rel`, its width; `stored`, the number of averages it is made
    of; `residual`, the distance of its profile from the power function, relative to that.
    """

    params: Any
    step: int
    sigma_rel: float
    stored: int
    residual: float


def power_widths(decays: Mapping[str, AbstractDecay]) -> dict[str, float]:
    """`sigma_rel` of those decays that are power functions."""
    return {name: float(decay.sigma_rel) for name, decay in decays.items() if type(decay) is PowerDecay}


def reconstruct(workdir: Path, params: Any, sigma_rel: float, step: int | None = None) -> Reconstruction:
    """The average of width `sigma_rel` after `step` updates, by default those of the last snapshot.

    `params` is a tree of arrays or shapes, the network's. The snapshots up to `step` are summed in float64, one in memory
    at a time. Errors: `FileNotFoundError` if there are none; a width or a step that is not accepted.
    """
    directories = sound_steps(Path(workdir) / SNAPSHOTS) if (Path(workdir) / SNAPSHOTS).is_dir() else []
    if not directories:
        raise FileNotFoundError(
            f"no snapshots in {workdir}: runs with run.snapshot_every > 0 and a power average keep them."
        )
    step = int(directories[-1].name) if step is None else step
    used = [directory for directory in directories if int(directory.name) <= step]
    if not used:
        raise ValueError(f"step = {step} is not accepted; the first snapshot is of step {directories[0].name}.")
    stored = [(directory, name, width) for directory in used for name, width in _widths(directory).items()]
    factors, residual = coefficients([(width, int(d.name)) for d, _, width in stored], (sigma_rel, step))
    total = jax.tree.map(lambda x: np.zeros(x.shape, np.float64), params)
    for factor, (directory, name, _) in zip(factors, stored, strict=True):
        part = read_state(directory, {"averages": {name: params}})["averages"][name]
        total = jax.tree.map(lambda sum, x, factor=factor: sum + factor * np.asarray(x, np.float64), total, part)
    result = jax.tree.map(lambda sum, x: sum.astype(x.dtype), total, params)
    return Reconstruction(result, step, sigma_rel, len(stored), residual)


def _widths(directory: Path) -> dict[str, float]:
    return read_record(directory)["sigma_rel"]
