import abc
import hashlib
from pathlib import Path


class AbstractFiles(abc.ABC):
    """Named files with random access, from several threads at a time.

    Hidden files and folders, and those that begin with two underscores as operating systems add them, are left out.
    """

    path: Path
    """Where they come from, for messages."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """All names, sorted, with `/` between folders."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file. Errors: a name that is not there; a file that is damaged."""

    def checksum(self, name: str) -> str:
        """Changes with the content of a file."""
        return hashlib.sha256(self.read(name)).hexdigest()


def is_data(name: str) -> bool:
    """Whether a file belongs to the data, by its name."""
    return bool(name) and not any(part.startswith((".", "__")) for part in name.split("/"))
