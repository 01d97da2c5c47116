"""Checkpoints: Orbax for the arrays, and a SHA-256 manifest of our own, because Orbax restores a flipped byte silently.

A step is a directory `<directory>/<step>` with the items `state` (arrays) and `record` (JSON), and `manifest.json`, which
is written last: a step without a manifest, or whose files differ from it, is torn. Orbax commits by a rename, and
the manifest is renamed into place, so a kill at any moment leaves the steps before it as they were.
"""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sdelab._checks import check_count
from sdelab.train.distributed import barrier, from_main, is_main

MANIFEST = "manifest.json"


class TornCheckpoint(UserWarning):
    """A checkpoint is incomplete or damaged, and is passed over."""


class Checkpoints(contextlib.AbstractContextManager[Any]):
    """The checkpoints of one run.

    `directory` holds them; the newest `keep` >= 2 stay, since the newest is trusted only once its manifest is written. With
    None all stay.
    Saving is synchronous: a checkpoint that cannot be written is an error of the step that wanted it.
    In a run of several processes every one of them makes the same calls; each writes its part of the arrays, the first
    one the rest.
    """

    def __init__(self, directory: Path, *, keep: int | None = 3):
        if keep is not None:
            check_count(keep=keep)
            if keep < 2:
                raise ValueError(f"keep = {keep} is not accepted; keep must be an integer >= 2.")
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False
        )
        self._orbax = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Writes `state`, a pytree of arrays, and `record`, JSON, as step `step`. A step that is there stays as it is.

        Errors: `RuntimeError` if Orbax declines, and whatever the file system raises.
        """
        if step in self._orbax.all_steps():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        if not self._orbax.save(step, args=items, force=True):
            raise RuntimeError(f"checkpoint {step} was not written to {self.directory}.")
        self._orbax.wait_until_finished()
        if is_main():
            write_manifest(self.directory / str(step))
        barrier(f"sdelab: checkpoint {step} is written")

    def restore(self, template: Any, accept: Callable[[dict[str, Any]], None]) -> tuple[int, Any] | None:
        """The newest sound step and its state, in the structure, dtypes and placement of `template`; None if there is none.

        `accept(record)` raises if the record is not of this run: it is called before anything is touched. Torn steps
        are then set aside, with a warning that names them, lest Orbax skip the saves up to them.
        """
        step, torn = from_main(self._examine)
        if step is not None:
            accept(read_record(self.directory / str(step)))
        self._set_aside(torn)
        if step is None:
            return None
        args = ocp.args.Composite(state=ocp.args.StandardRestore(_placed(template)))
        return step, self._orbax.restore(step, args=args)["state"]

    def set_torn_aside(self) -> None:
        """Moves the torn steps that are newer than every sound one away, with a warning, so that they are written again."""
        self._set_aside(from_main(self._examine)[1])

    def __exit__(self, *error: Any) -> None:
        self._orbax.close()

    def _examine(self) -> tuple[int | None, list[int]]:
        """The newest sound step, and the torn ones after it."""
        torn = []
        for step in sorted(self._orbax.all_steps(), reverse=True):
            problem = find_damage(self.directory / str(step))
            if problem is None:
                return step, torn
            warnings.warn(f"checkpoint {step} is torn ({problem}); passed over.", TornCheckpoint, stacklevel=3)
            torn.append(step)
        return None, torn

    def _set_aside(self, steps: list[int]) -> None:
        if not steps:
            return
        shelf = self.directory.parent / f"{self.directory.name}_torn"
        for step in steps if is_main() else ():
            shelf.mkdir(exist_ok=True)
            copies = len(list(shelf.glob(f"{step}.*")))
            os.replace(self.directory / str(step), shelf / f"{step}.{copies}")
        barrier("sdelab: torn checkpoints are set aside")
        self._orbax.reload()


def newest_sound_step(directory: Path) -> Path:
    """The directory of the newest sound checkpoint, for readers: nothing is moved or deleted.

    Errors: `FileNotFoundError` if there is none.
    """
    newest = next(_sound_steps(directory), None)
    if newest is None:
        raise FileNotFoundError(f"no sound checkpoint in {directory}.")
    return newest


def sound_steps(directory: Path) -> list[Path]:
    """The directories of all sound checkpoints, from the oldest to the newest; torn ones are passed over with a warning."""
    return [*_sound_steps(directory)][::-1]


def _sound_steps(directory: Path) -> Iterator[Path]:
    numbered = [path for path in Path(directory).glob("*") if path.name.isdigit()]
    for path in sorted(numbered, key=lambda path: int(path.name), reverse=True):
        problem = find_damage(path)
        if problem is None:
            yield path
        else:
            warnings.warn(f"checkpoint {path.name} is torn ({problem}); passed over.", TornCheckpoint, stacklevel=3)


def read_record(step_directory: Path) -> dict[str, Any]:
    """The JSON saved beside the state."""
    return json.loads((step_directory / "record" / "metadata").read_text())  # where Orbax's JSON handler puts it


def read_state(step_directory: Path, template: Any) -> Any:
    """The part of the state that `template`, a dict of arrays or `jax.ShapeDtypeStruct`, asks for."""
    template = _placed(template)
    with ocp.PyTreeCheckpointer() as checkpointer:
        args = ocp.args.PyTreeRestore(
            item=template,
            restore_args=ocp.checkpoint_utils.construct_restore_args(template),
            partial_restore=True,
        )
        return checkpointer.restore((step_directory / "state").absolute(), args=args)


def write_manifest(step_directory: Path) -> None:
    """Writes the size and SHA-256 of every file of the step, atomically."""
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


def _placed(template: Any) -> Any:
    """Shapes and dtypes, each with the sharding that it has or the first device."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here), template
    )


def _digests(step_directory: Path) -> dict[str, str]:
    files = sorted(path for path in step_directory.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST))
    return {path.relative_to(step_directory).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
