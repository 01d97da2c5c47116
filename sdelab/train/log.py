"""Where the metrics and pictures of a run go: files in its directory always, TensorBoard events and Weights & Biases through
extras, and a progress bar."""

import abc
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from sdelab._extras import import_extra

Pixels = UInt8[np.ndarray, "height width 3"]

TIMES = ("images_per_second", "data_wait")
"""Numbers of a row that two runs of one config have different: how fast they went."""


class AbstractWriter(contextlib.AbstractContextManager[Any]):
    """Receives one row of metrics, and one picture, at a time; a context, so that it is closed."""

    @abc.abstractmethod
    def write(self, step: int, row: dict[str, float]) -> None:
        """Writes the metrics of `step`, so that a kill after it loses nothing."""

    @abc.abstractmethod
    def show(self, step: int, name: str, pixels: Pixels) -> None:
        """Writes the picture `name` of `step`."""


class PictureFiles(AbstractWriter):
    """Pictures as `<directory>/<name>/<step>.png`, the step in eight digits. Metrics are not its matter.

    Opening the directory drops the pictures after `resume_step`, which the resumed run draws again.
    """

    def __init__(self, directory: Path, *, resume_step: int = 0):
        self._directory = directory
        for path in directory.glob("*/*.png"):
            if path.stem.isdigit() and int(path.stem) > resume_step:
                path.unlink()

    def write(self, step: int, row: dict[str, float]) -> None:
        return None

    def show(self, step: int, name: str, pixels: Pixels) -> None:
        from sdelab.plot import save_pixels  # loads matplotlib: only where there is a picture

        path = self._directory / name / f"{step:08d}.png"
        os.replace(save_pixels(pixels, path.with_suffix(".part")), path)

    def __exit__(self, *error: Any) -> None:
        return None


class JsonLines(AbstractWriter):
    """One JSON object a line, `{"step": 100, "loss": 0.3, ...}`, flushed line by line.

    Opening the file drops the rows after `resume_step`, which the resumed run writes again, and a torn last line. A row may have
    lists of numbers too; pictures are not its matter.
    """

    def __init__(self, path: Path, *, resume_step: int = 0):
        rows = [row for row in read_json_lines(path) if row["step"] <= resume_step] if path.exists() else []
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        part.replace(path)
        self._file = path.open("a")

    def write(self, step: int, row: Mapping[str, float | list[float]]) -> None:
        self._file.write(json.dumps({"step": step, **row}, allow_nan=False) + "\n")
        self._file.flush()

    def show(self, step: int, name: str, pixels: Pixels) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        self._file.close()


class TensorBoard(AbstractWriter):
    """Scalars and pictures as TensorBoard events in `directory`; needs the extra `sdelab[tensorboard]`.

    Events after `resume_step` of an earlier run are hidden by the viewer.
    """

    def __init__(self, directory: Path, *, resume_step: int = 0):
        self._writer = summary_writer()(str(directory), purge_step=resume_step + 1)

    def write(self, step: int, row: dict[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def show(self, step: int, name: str, pixels: Pixels) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")
        self._writer.flush()

    def __exit__(self, *error: Any) -> None:
        self._writer.close()


def summary_writer() -> Any:
    """The class that writes events. Errors: `MissingExtra`."""
    return import_extra("tensorboardX", "tensorboard", "a TensorBoard log").SummaryWriter


class Log:
    """Rows of metrics to all writers and the progress bar; and pictures.

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
        row = {**means, **dict(zip(TIMES, (rate, share), strict=True))}
        for writer in self._writers:
            writer.write(step, row)

    def show(self, step: int, name: str, pixels: Pixels) -> None:
        """A picture, to all writers."""
        for writer in self._writers:
            writer.show(step, name, pixels)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What is done within is no training: the rate of examples leaves its time out."""
        start = time.perf_counter()
        yield
        self._time += time.perf_counter() - start


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a torn last line, left by a kill, is dropped.

    Errors: a line that is not JSON anywhere else.
    """
    complete = Path(path).read_text().split("\n")[:-1]  # what follows the last newline is empty, or torn
    return [json.loads(line) for line in complete if line]
