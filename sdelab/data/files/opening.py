from pathlib import Path

from sdelab.data.files.base import AbstractFiles
from sdelab.data.files.folder import FolderFiles
from sdelab.data.files.tar import TarFiles
from sdelab.data.files.zip import ZipFiles

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def open_files(path: Path) -> AbstractFiles:
    """The files of a folder, a zip or a tar archive. Errors: `FileNotFoundError`; an archive of another kind."""
    if path.is_dir():
        return FolderFiles(path)
    if not path.exists():
        raise FileNotFoundError(f"path = {path}: there is no such folder or archive.")
    if path.name.lower().endswith(".zip"):
        return ZipFiles(path)
    if path.name.lower().endswith(TAR_ENDINGS):
        return TarFiles(path)
    raise ValueError(f"path = {path} is not accepted; accepted: a folder, or {', '.join(('.zip', *TAR_ENDINGS))}.")
