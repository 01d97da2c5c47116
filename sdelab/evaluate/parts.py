"""A result with one row for each sample or image, made a batch at a time: what is there of it, and where it is kept."""

import abc
import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sdelab._checks import check_count
from sdelab.train.distributed import VISIBLE_SECONDS, barrier, check_shared, from_main, is_main
from sdelab.train.record import differences, write_json
from sdelab.train.signals import AbstractStopRequest, NoStopRequest, SharedStopRequest, StopRequest
from sdelab.train.workdir import claim

RECORD = "shards.json"
"""What the shards of a folder are, and what they are of."""


class TornShard(UserWarning):
    """A file of a folder of shards is damaged; it is made anew."""


class ShardMismatch(ValueError):
    """The folder holds something else; its files are left alone."""


class AbstractParts(contextlib.AbstractContextManager[Any]):
    """Rows 0 to `count` - 1 of named arrays, in batches of `batch_size`; the last one has what is left.

    Within the context, the parts are this caller's alone.
    """

    def __init__(self, count: int, batch_size: int):
        check_count(count=count, batch_size=batch_size)
        self.count, self.batch_size = count, min(batch_size, count)

    def firsts(self) -> range:
        """The first rows of all batches."""
        return range(0, self.count, self.batch_size)

    def size(self, first: int) -> int:
        """The number of rows of the batch that begins there."""
        return min(self.batch_size, self.count - first)

    @abc.abstractmethod
    def missing(self) -> list[int]:
        """The first rows of the batches that are not there, increasing; the same in every process."""

    @abc.abstractmethod
    def keep(self, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps a batch, which every process hands in."""

    @abc.abstractmethod
    def wait(self) -> None:
        """Returns once every batch is there, whoever keeps it. Errors: one that is not."""

    @abc.abstractmethod
    def read(self, name: str, count: int | None = None) -> np.ndarray | None:
        """All rows of an array, or the first `count`; None if there is none of that name."""

    @abc.abstractmethod
    def stop_request(self) -> AbstractStopRequest:
        """Whether the work on these parts may be asked to stop between two batches."""


class InMemory(AbstractParts):
    """In the memory of every process, and gone with it."""

    def __init__(self, count: int, batch_size: int):
        super().__init__(count, batch_size)
        self._parts: dict[int, Mapping[str, np.ndarray]] = {}

    def missing(self) -> list[int]:
        return [first for first in self.firsts() if first not in self._parts]

    def keep(self, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        self._parts[first] = arrays

    def wait(self) -> None:
        return None

    def read(self, name: str, count: int | None = None) -> np.ndarray | None:
        return _joined((self._parts[first].get(name) for first in self.firsts()), count)

    def stop_request(self) -> AbstractStopRequest:
        return NoStopRequest()

    def __exit__(self, *error: Any) -> None:
        return None


class Shards(AbstractParts):
    """In the files `<first>-<last>.npz` of a folder, which a later call completes, on whatever devices and processes.

    `record`, JSON, says what the rows are a function of: rows of another record are refused; `notes` stand beside it and
    are not compared. A file is written beside its place and renamed into it, so that a kill at any moment leaves whole
    files, or none; one that is damaged all the same is made anew, with a warning that names it. Of several processes each
    writes its share of the files; they must see one folder. `name` is the folder's in the words of the errors.

    Errors on entering: `ShardMismatch`, with the keys that differ, or for a folder of other files; `WorkdirInUse`;
    `NotShared`; a folder that cannot be written to.
    """

    def __init__(
        self,
        folder: Path | str,
        record: Mapping[str, Any],
        count: int,
        batch_size: int,
        *,
        notes: Mapping[str, Any] | None = None,
        name: str = "folder",
    ):
        super().__init__(count, batch_size)
        self.folder, self._name, self._notes = Path(folder), name, notes or {}
        self._record = json.loads(json.dumps({**record, "count": count, "batch": self.batch_size}))
        self._held, self._recorded = contextlib.ExitStack(), False

    def __enter__(self) -> "Shards":
        if self.folder.is_dir():
            self._check_record()  # before the lock leaves its file in a folder that is none of ours
        with contextlib.ExitStack() as stack:
            if is_main():
                stack.enter_context(claim(self.folder, name=self._name, doing="writing shards"))
            check_shared(self.folder, self._name)
            self._recorded = self._check_record()
            barrier("sdelab: the record of the shards is read")
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._held.close()

    def path(self, first: int) -> Path:
        """The file of the batch that begins there; names sort as rows do."""
        digits = max(5, len(str(self.count - 1)))
        return self.folder / f"{first:0{digits}}-{first + self.size(first) - 1:0{digits}}.npz"

    def missing(self) -> list[int]:
        return from_main(lambda: [first for first in self.firsts() if not self._is_sound(first)])

    def keep(self, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        if not self._recorded:  # now that the work can be done at all, and before any shard
            if is_main():
                write_json(self.folder / RECORD, {"record": self._record, "notes": self._notes})
            barrier("sdelab: the record of the shards is written")
            self._recorded = True
        if first // self.batch_size % jax.process_count() == jax.process_index():
            write_npz(self.path(first), arrays)

    def wait(self) -> None:
        barrier("sdelab: all shards are written")
        end = time.monotonic() + VISIBLE_SECONDS
        while (absent := [self.path(first) for first in self.firsts() if not self.path(first).exists()]) and (
            time.monotonic() < end
        ):
            time.sleep(0.1)  # a shared file system shows a file of another host in its own time
        if absent:
            raise OSError(f"{absent[0]} and {len(absent) - 1} more are not there, though they were written.")

    def read(self, name: str, count: int | None = None) -> np.ndarray | None:
        firsts = self.firsts() if count is None else range(0, min(count, self.count), self.batch_size)
        return _joined((_read(self.path(first), name) for first in firsts), count)

    def stop_request(self) -> AbstractStopRequest:
        return SharedStopRequest() if jax.process_count() > 1 else StopRequest()

    def _check_record(self) -> bool:
        """Whether the folder has this very record; if not, it is empty."""
        path = self.folder / RECORD
        if not path.exists():
            self._check_empty()
            return False
        try:
            found = json.loads(path.read_text())["record"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: it does not say what the shards are. Use another folder.") from error
        lines = differences(found, self._record, "in the folder")
        if lines:
            raise ShardMismatch(
                f"{self._name} = {self.folder} holds other shards; use another folder, or the same settings:\n"
                + "\n".join(lines)
            )
        return True

    def _check_empty(self) -> None:
        names = sorted(path.name for path in self.folder.iterdir())
        others = [name for name in names if not name.startswith(".") and not name.endswith(".part")]
        if others:
            raise ShardMismatch(
                f"{self._name} = {self.folder} is not accepted: it has {others[0]} in it and no {RECORD}; accepted: a new or "
                "empty folder, or one with shards of the same settings."
            )

    def _is_sound(self, first: int) -> bool:
        path = self.path(first)
        if not path.exists():
            return False
        try:
            with np.load(path) as arrays:
                lengths = {len(arrays[name]) for name in arrays.files}  # reads all: each has a checksum
            problem = "" if lengths == {self.size(first)} else f"rows {sorted(lengths)}, not {self.size(first)}"
        except Exception as error:  # what a damaged file holds may fail in any way
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        if problem:
            warnings.warn(f"{path} is torn ({problem}); it is made anew.", TornShard, stacklevel=3)
        return not problem


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays so that the file is the old one or the new one, never a part."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType] (its keyword arguments have a name among them)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _read(path: Path, name: str) -> np.ndarray | None:
    with np.load(path) as arrays:
        return arrays[name] if name in arrays.files else None


def _joined(parts: Iterator[np.ndarray | None], count: int | None) -> np.ndarray | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there)[:count] if there else None
