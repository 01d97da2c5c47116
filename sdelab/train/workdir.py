"""The directory of a run: it can be written to, one process at a time writes to it, and it holds one run."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdelab.train.record import check_same_run

RECORD = "record.json"


class WorkdirInUse(OSError):
    """Another process writes to the directory."""


def check_recorded(workdir: Path, record: dict[str, Any]) -> None:
    """Nothing, or this very run, is in `workdir`. Its record is there before its first checkpoint, and outlives torn ones.

    Errors: `CheckpointMismatch`; a record that cannot be read.
    """
    path = workdir / RECORD
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it does not say which run this is. Use another workdir.") from error
    check_same_run(found, record)


def make_writable(directory: Path, name: str) -> None:
    """Makes the directory, and a file in it that is gone at once. Errors: `OSError` that names the argument."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise OSError(f"{name} = {directory} is no directory that can be written to: {error.strerror}.") from error


@contextlib.contextmanager
def claim(workdir: Path, *, name: str = "workdir", doing: str = "training") -> Iterator[None]:
    """Holds `workdir/.lock` within the context; the system frees it when the process ends, however that happens.

    `name` and `doing` are for the words of the errors.

    Errors: `WorkdirInUse`; a directory that cannot be written to.
    """
    import fcntl  # not on Windows, where the rest of the package can be imported

    make_writable(workdir, name)
    with (workdir / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirInUse(f"another process is {doing} in {workdir}; use another {name}, or wait.") from error
        yield
