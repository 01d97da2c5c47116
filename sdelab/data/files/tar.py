import lzma
import tarfile
import zlib
from pathlib import Path

from sdelab.data.files.base import AbstractFiles, is_data


class TarFiles(AbstractFiles):
    """The files of a tar archive, compressed or not. It has no random access: all of it is held in memory.

    Errors: what is no tar archive, or a torn one.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._contents = _read_all(path)
            self._names = tuple(sorted(self._contents))
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"{path} is not a whole tar archive: {error}. Copy or download it again.") from error

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def read(self, name: str) -> bytes:
        return self._contents[name]


def _read_all(path: Path) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            file = archive.extractfile(member) if member.isfile() and is_data(name) else None
            if file is not None:
                contents[name] = file.read()
    return contents
