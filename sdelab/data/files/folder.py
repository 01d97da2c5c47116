import functools
import os
from pathlib import Path

from sdelab.data.files.base import AbstractFiles, is_data


class FolderFiles(AbstractFiles):
    """The files below a folder, links followed."""

    def __init__(self, path: Path):
        self.path = path

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        found = []
        for folder, _, files in os.walk(self.path, followlinks=True):
            below = Path(folder).relative_to(self.path)
            found += [(below / file).as_posix() for file in files]
        return tuple(sorted(filter(is_data, found)))

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()
