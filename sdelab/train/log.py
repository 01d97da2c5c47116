"""Where the metrics of a run go: `metrics.jsonl` always, TensorBoard events through an extra, and a progress bar."""

import abc
import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sdelab._extras import MissingExtra


class AbstractWriter(contextlib.AbstractContextManager[Any]):
    """Receives one row of metrics at a time; a context, so that it is closed."""

    @abc.abstractmethod
    def write(self, step: int, row: dict[str, float]) -> None:
        """Writes the metrics of `step`, so that a kill after it loses nothing."""


class JsonLines(AbstractWriter):
    """One JSON object a line, `{"step": 100, "loss": 0.3, ...}`, flushed line by line.

    Opening the file drops the rows after `resume_step`, which the resumed run writes again, and a torn last line.
    """

    def __init__(self, path: Path, *, resume_step: int = 0):
        rows = [row for row in read_json_lines(path) if row["step"] <= resume_step] if path.exists() else []
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        part.replace(path)
        self._file = path.open("a")

    def write(self, step: int, row: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **row}, allow_nan=False) + "\n")
        self._file.flush()

    def __exit__(self, *error: Any) -> None:
        self._file.close()


class TensorBoard(AbstractWriter):
    """Scalars as TensorBoard events in `directory`; needs the extra `sdelab[tensorboard]`.

    Events after `resume_step` of an earlier run are hidden by the viewer.
    """

    def __init__(self, directory: Path, *, resume_step: int = 0):
        self._writer = summary_writer()(str(directory), purge_step=resume_step + 1)

    def write(self, step: int, row: dict[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def __exit__(self, *error: Any) -> None:
        self._writer.close()


def summary_writer() -> Any:
    """The class that writes events. Errors: `MissingExtra`."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise MissingExtra("TensorBoard events need tensorboardX: pip install 'sdelab[tensorboard]'.") from error
    return SummaryWriter


class Log:
    """Rows of metrics to all writers and the progress bar.

    Added are, since the row before, `images_per_second` and `data_wait`, the share of the time spent waiting for batches.
    """

    def __init__(self, writers: Sequence[AbstractWriter], bar: tqdm, *, examples_per_step: int):
        self._writers, self._bar, self._examples = writers, bar, examples_per_step
        self._step, self._time, self._waited = bar.n, time.perf_counter(), 0.0

    def advance(self, steps: int) -> None:
        """Moves the progress bar."""
        self._bar.update(steps)

    def write(self, step: int, means: dict[str, float], *, waited: float = 0.0) -> None:
        """Writes the row of `step`; `waited` are the seconds spent waiting for batches so far."""
        now = time.perf_counter()
        rate = self._examples * (step - self._step) / (now - self._time)
        share = (waited - self._waited) / (now - self._time)
        self._step, self._time, self._waited = step, now, waited
        self._bar.set_postfix_str(f"loss {means['loss']:.4f}, {rate:.0f} images/s")
        row = {**means, "images_per_second": rate, "data_wait": share}
        for writer in self._writers:
            writer.write(step, row)


def check_writers(tensorboard: bool) -> None:
    """Errors: `MissingExtra`."""
    if tensorboard:
        summary_writer()


def open_writers(workdir: Path, resume_step: int, tensorboard: bool) -> list[AbstractWriter]:
    """The writers of a run that goes on after `resume_step`."""
    writers: list[AbstractWriter] = [JsonLines(workdir / "metrics.jsonl", resume_step=resume_step)]
    if tensorboard:
        writers.append(TensorBoard(workdir / "tensorboard", resume_step=resume_step))
    return writers


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a torn last line, left by a kill, is dropped.

    Errors: a line that is not JSON anywhere else.
    """
    complete = Path(path).read_text().split("\n")[:-1]  # what follows the last newline is empty, or torn
    return [json.loads(line) for line in complete if line]
