"""The SHA-256 of every file of a checkpoint, because Orbax restores a flipped byte silently."""

import hashlib
import json
import os
from pathlib import Path

MANIFEST = "manifest.json"


def write_manifest(step_directory: Path) -> None:
    """Writes the SHA-256 of every file of the step, atomically."""
    part = step_directory / f"{MANIFEST}.part"
    with part.open("w") as file:
        json.dump(_digests(step_directory), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, step_directory / MANIFEST)


def find_damage(step_directory: Path) -> str | None:
    """What is wrong with the files of a step, in words; None if they are those that were written."""
    try:
        manifest = json.loads((step_directory / MANIFEST).read_text())
    except (OSError, ValueError):
        return "no readable manifest"
    found = _digests(step_directory)
    for name, digest in manifest.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} differs from its SHA-256"
    return None


def _digests(step_directory: Path) -> dict[str, str]:
    files = sorted(path for path in step_directory.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST))
    return {path.relative_to(step_directory).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
