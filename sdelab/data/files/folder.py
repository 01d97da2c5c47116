import os
from pathlib import Path

from sdelab.data.files.base import AbstractFiles, is_data


class FolderFiles(AbstractFiles):
    """The files that are below a folder now, links followed."""

    def __init__(self, path: Path):
        self.path = path
        found = []
        for folder, _, files in os.walk(path, followlinks=True):
            below = Path(folder).relative_to(path)
            found += [(below / file).as_posix() for file in files]
        self._names = tuple(sorted(filter(is_data, found)))

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()
