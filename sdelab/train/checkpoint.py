"""Checkpoints: Orbax for the arrays, and a SHA-256 manifest of our own, because Orbax restores a flipped byte silently.

A step is a directory `<directory>/<step>` with the items `state` (arrays) and `record` (JSON), and `manifest.json`, which
is written last: a step without a manifest, or whose files differ from it, is torn. Orbax commits by a rename, and
the manifest is renamed into place, so a kill at any moment leaves the steps before it as they were.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sdelab._checks import check_count
from sdelab.train.distributed import barrier, from_main, is_main
from sdelab.train.manifest import find_damage, write_manifest
from sdelab.train.retention import Best, remove


class TornCheckpoint(UserWarning):
    """A checkpoint is incomplete or damaged, and is passed over."""


class Checkpoints(contextlib.AbstractContextManager[Any]):
    """The checkpoints of one run.

    `directory` holds them; the newest `keep` >= 2 stay, so that a damaged one is not the only one, and the `best` of all.
    With `keep=None` all stay.
    Saving is asynchronous: `save` returns as soon as the arrays are copied to the host, and they may be donated then.
    What goes wrong in the background is raised by the next call of `save`, `check` or `finish`, or on leaving the context.
    In a run of several processes every one of them makes the same calls; each writes its part of the arrays, the first
    one the rest.
    """

    def __init__(self, directory: Path, *, keep: int | None = 3, best: Best | None = None):
        if keep is not None:
            check_count(keep=keep)
            if keep < 2:
                raise ValueError(f"keep = {keep} is not accepted; keep must be an integer >= 2.")
        self.directory = Path(directory).absolute()
        self._keep, self._best = keep, best
        # the name keeps apart what the processes wait for when two such directories are written at a time
        apart = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=self.directory.name)
        options = ocp.CheckpointManagerOptions(cleanup_tmp_directories=True, multiprocessing_options=apart)
        self._orbax = _Manager(self.directory, options=options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._failed = False

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Begins to write `state`, a pytree of arrays, and `record`, JSON, as step `step`. A step that is there stays as it is.

        It waits for the save before. Errors: `RuntimeError` if Orbax declines, and whatever the file system raises.
        """
        self._wait()
        if step in self._orbax.all_steps():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        if not self._orbax.save(step, args=items, force=True):
            raise RuntimeError(f"checkpoint {step} was not written to {self.directory}.")
        self._pending = self._thread.submit(self._commit, step)

    def check(self) -> None:
        """Raises what went wrong in the background since the last call, without waiting."""
        if self._pending is not None and self._pending.done():
            self._wait()

    def finish(self) -> None:
        """Waits until what was saved is on disk, in all processes."""
        self._wait()
        barrier(f"sdelab: {self.directory.name} are written")

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
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            with contextlib.suppress(Exception) if self._failed else contextlib.nullcontext():
                self._orbax.close()  # raises a second time what has failed

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _commit(self, step: int) -> None:
        """In the background: the manifest is written when Orbax has renamed the step into place, and older steps go then."""
        try:
            self._orbax.wait_until_finished()
            if is_main():
                write_manifest(self.directory / str(step))
                self._remove_old()
        except Exception as error:
            self._failed = True
            error.add_note(f"This was checkpoint {step} in {self.directory}; those before it are as they were.")
            raise

    def _remove_old(self) -> None:
        if self._keep is None:
            return
        steps = sorted(int(path.name) for path in _numbered(self.directory))
        kept = {*steps[-self._keep :]}
        if self._best is not None:
            kept |= {*self._best({step: read_metrics(self.directory / str(step)) for step in steps})}
        remove(self.directory, {*steps} - kept)

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


class _Manager(ocp.CheckpointManager):
    """Orbax's, which does not ask whether the run must stop: its steps are not what `SharedStopRequest` counts in."""

    def reached_preemption(self, step: int) -> bool:
        return False


def newest_sound_step(directory: Path) -> Path:
    """The directory of the newest sound checkpoint, for readers: nothing is moved or deleted.

    Errors: `FileNotFoundError` if there is none.
    """
    newest = next(_sound_steps(directory), None)
    if newest is None:
        raise FileNotFoundError(f"no sound checkpoint in {directory}.")
    return newest


def sound_step(directory: Path, step: int) -> Path:
    """The directory of the checkpoint of that step. Errors: there is none, with those that there are; it is torn."""
    steps = sorted(int(path.name) for path in _numbered(directory))
    if step not in steps:
        raise ValueError(
            f"step = {step} is not accepted; checkpoints in {directory}: {', '.join(map(str, steps)) or 'none'}."
        )
    problem = find_damage(directory / str(step))
    if problem is not None:
        raise ValueError(f"step = {step} is not accepted; the checkpoint is torn ({problem}).")
    return directory / str(step)


def best_sound_step(directory: Path, metric: str = "loss") -> Path:
    """The directory of the sound checkpoint with the lowest metric, see `Best`.

    Errors: `FileNotFoundError` if there is none that has one.
    """
    found = {int(path.name): path for path in _sound_steps(directory)}
    best = Best(metric)({step: read_metrics(path) for step, path in found.items()})
    if not best:
        raise FileNotFoundError(f"no sound checkpoint in {directory} has the metric {metric!r}.")
    return found[best[0]]


def sound_steps(directory: Path) -> list[Path]:
    """The directories of all sound checkpoints, from the oldest to the newest; torn ones are passed over with a warning."""
    return [*_sound_steps(directory)][::-1]


def _sound_steps(directory: Path) -> Iterator[Path]:
    for path in sorted(_numbered(directory), key=lambda path: int(path.name), reverse=True):
        problem = find_damage(path)
        if problem is None:
            yield path
        else:
            warnings.warn(f"checkpoint {path.name} is torn ({problem}); passed over.", TornCheckpoint, stacklevel=3)


def _numbered(directory: Path) -> list[Path]:
    return [path for path in Path(directory).glob("*") if path.name.isdigit()]


def read_record(step_directory: Path) -> dict[str, Any]:
    """The JSON saved beside the state."""
    return json.loads((step_directory / "record" / "metadata").read_text())  # where Orbax's JSON handler puts it


def read_metrics(step_directory: Path) -> dict[str, float]:
    """The row of the log that ends at the step; empty if none does, or the record cannot be read."""
    try:
        return read_record(step_directory).get("metrics") or {}
    except (OSError, ValueError):
        return {}


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


def _placed(template: Any) -> Any:
    """Shapes and dtypes, each with the sharding that it has or the first device."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here), template
    )
