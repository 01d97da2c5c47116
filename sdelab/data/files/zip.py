import zipfile
import zlib
from pathlib import Path

from sdelab.data.files.base import AbstractFiles, is_data


class ZipFiles(AbstractFiles):
    """The files of a zip archive, read where they are. Its own CRC-32 serve as checksums: they cost nothing.

    Errors: what is no zip archive.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is not a whole zip archive: {error}. Copy or download it again.") from error
        self._names = tuple(sorted(n for n in self._zip.namelist() if not n.endswith("/") and is_data(n)))

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.path}: {name} is damaged: {error}. Copy or download it again.") from error

    def checksum(self, name: str) -> str:
        entry = self._zip.getinfo(name)
        return f"{entry.CRC:08x}-{entry.file_size}"
