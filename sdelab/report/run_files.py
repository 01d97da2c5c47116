"""What is in the directory of a run, finished or not. Nothing is written, and a checkpoint that goes meanwhile is no error."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdelab.train.checkpoint import newest_sound_step, read_record
from sdelab.train.log import read_json_lines
from sdelab.train.manifest import MANIFEST
from sdelab.train.monitor import LOSS_BY_TIME
from sdelab.train.workdir import RECORD


@dataclasses.dataclass(frozen=True)
class SavedStep:
    """A checkpoint, by its files: whether it is `complete`, in bytes, and when it was written, in seconds since 1970."""

    step: int
    size: int
    written: float
    complete: bool


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """A run, by its files; see `sdelab.train.fit`. What it does not have is empty.

    `record`, the configuration in it; `metrics` and `loss_by_time`, rows; `samples`, the pictures of samples over
    training by their steps, and `drawn`, those of `sdelab sample`, as PNG; `evaluations`, by the names of their files;
    `checkpoints`, from the oldest to the newest; `set_aside`, names of torn ones; `written`, the time of the last row.
    """

    workdir: Path
    record: dict[str, Any]
    metrics: list[dict[str, Any]]
    loss_by_time: list[dict[str, Any]]
    samples: dict[int, bytes]
    drawn: dict[str, bytes]
    evaluations: dict[str, dict[str, Any]]
    checkpoints: list[SavedStep]
    set_aside: list[str]
    written: float | None

    @property
    def config(self) -> dict[str, Any]:
        """The configuration."""
        return self.record["config"]

    @property
    def step(self) -> int:
        """The last step of which there is a row or a checkpoint; 0 if there is none."""
        return max([0, *(row["step"] for row in self.metrics), *(c.step for c in self.checkpoints if c.complete)])


def read_run(workdir: Path | str, *, pictures: int = 12) -> RunFiles:
    """The run in `workdir`; of the pictures over training at most so many, the first and the last among them.

    Errors: `FileNotFoundError` if there is no run; a file that is damaged, by its name.
    """
    workdir = Path(workdir)
    metrics = workdir / "metrics.jsonl"
    torn = workdir / "checkpoints_torn"
    return RunFiles(
        workdir=workdir,
        record=_record(workdir),
        metrics=_rows(metrics),
        loss_by_time=_rows(workdir / LOSS_BY_TIME),
        samples={int(p.stem): p.read_bytes() for p in _spread(workdir / "pictures" / "samples", pictures)},
        drawn={path.name: path.read_bytes() for path in sorted(workdir.glob("samples*.png"))},
        evaluations={path.name: _json(path) for path in sorted(workdir.glob("evaluation*.json"))},
        checkpoints=_checkpoints(workdir / "checkpoints"),
        set_aside=sorted(path.name for path in torn.iterdir()) if torn.is_dir() else [],
        written=metrics.stat().st_mtime if metrics.exists() else None,
    )


def _record(workdir: Path) -> dict[str, Any]:
    if (workdir / RECORD).is_file():
        return _json(workdir / RECORD)
    if (workdir / "checkpoints").is_dir():  # a run that was imported
        return read_record(newest_sound_step(workdir / "checkpoints"))
    raise FileNotFoundError(f"no run in {workdir}: it has no {RECORD} and no checkpoints. `sdelab train` makes one.")


def _json(path: Path) -> Any:
    return _undamaged(path, lambda path: json.loads(path.read_text()))


def _rows(path: Path) -> list[dict[str, Any]]:
    return _undamaged(path, read_json_lines) if path.exists() else []


def _undamaged(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def _spread(directory: Path, count: int) -> list[Path]:
    """At most `count` of the numbered files, evenly spaced, with both ends."""
    paths = sorted(path for path in directory.glob("*.png") if path.stem.isdigit())
    if len(paths) <= count:
        return paths
    return [paths[round(i * (len(paths) - 1) / (count - 1))] for i in range(count)]


def _checkpoints(directory: Path) -> list[SavedStep]:
    found = []
    for path in directory.glob("*"):
        if path.name.isdigit():
            with contextlib.suppress(FileNotFoundError):  # an old one, which goes when a new one is there
                files = [file for file in path.rglob("*") if file.is_file()]
                size = sum(file.stat().st_size for file in files)
                found.append(SavedStep(int(path.name), size, path.stat().st_mtime, (path / MANIFEST).exists()))
    return sorted(found, key=lambda saved: saved.step)
