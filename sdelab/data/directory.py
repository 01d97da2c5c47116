import os
from collections.abc import Sequence
from pathlib import Path


def data_directory() -> Path:
    """Where data sets are looked for: the environment variable `SDELAB_DATA`, or `~/.cache/sdelab`."""
    return Path(os.environ.get("SDELAB_DATA") or "~/.cache/sdelab").expanduser()


def find_data(name: str, candidates: Sequence[str], advice: str) -> Path:
    """The first of the files or folders `candidates` that is in `data_directory()/name` or in `data_directory()`.

    Errors: `FileNotFoundError` that names them, their place, and with `advice` where they come from.
    """
    root = data_directory()
    for folder in (root / name, root):
        for candidate in candidates:
            if (folder / candidate).exists():
                return folder / candidate
    raise FileNotFoundError(
        f"{name} needs {' or '.join(candidates)} in {root / name}. {advice}, or set SDELAB_DATA to the folder that has "
        "it."
    )


def resolve_data(path: str) -> Path:
    """A path as it stands if it is absolute or there, else below `data_directory()`: configs fit every machine.

    Errors: `FileNotFoundError` that names both places.
    """
    given, below = Path(path).expanduser(), data_directory() / path
    for place in (below, given):
        if place.exists():
            return place
    raise FileNotFoundError(
        f"path = {path!r}: there is neither {below} nor {given.absolute()}. Put the data there, or set SDELAB_DATA to the "
        "folder that path starts from."
    )
