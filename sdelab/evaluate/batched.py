"""Work on many rows, a batch at a time over the devices of a placement."""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from sdelab._host import on_host
from sdelab._typing import PRNGKey, PRNGKeys
from sdelab.evaluate.parts import AbstractParts
from sdelab.solvers import sample_keys
from sdelab.train.distributed import is_main
from sdelab.train.placement import AbstractPlacement
from sdelab.train.signals import Preempted
from sdelab.train.watchdog import NoWatchdog, Watchdog

T = TypeVar("T")

Work: TypeAlias = Callable[[np.ndarray], Mapping[str, Array | None]]
"""From the numbers of rows to named arrays on the devices, with a row for each. Not all need be there."""

Finish: TypeAlias = Callable[[np.ndarray, dict[str, np.ndarray]], Mapping[str, np.ndarray]]
"""From the numbers of rows and their arrays, on the host, to what is kept of them."""

PATIENCE = 1200.0
"""Seconds that one of several processes may take for a batch before it is taken for hung."""


def complete(
    parts: AbstractParts,
    work: Work,
    placement: AbstractPlacement,
    *,
    finish: Finish = lambda rows, arrays: arrays,
    unit: str = "sample",
    patience: float = PATIENCE,
) -> None:
    """Does the batches that `parts` lacks, and keeps what `finish` makes of them; within the context of `parts`.

    All batches have one size, that of a batch rounded up to a multiple of the devices, so that one program serves all:
    what is over repeats the last row and is thrown away. The devices compute a batch while the host keeps the one before.
    A terminal shows how far it is, and, if `work` counts `evaluations` of the score, how many a second there are.

    Errors: those of `work`; `Preempted`, on SIGTERM or Ctrl-C once what was under way is kept, if `parts` outlive it.
    """
    missing = parts.missing()
    left = sum(parts.size(first) for first in missing)
    size = -(-parts.batch_size // placement.shares) * placement.shares
    with contextlib.ExitStack() as stack:
        dog = stack.enter_context(Watchdog(patience, patience) if jax.process_count() > 1 else NoWatchdog())
        stop = stack.enter_context(parts.stop_request())
        hidden = None if is_main() and len(parts.firsts()) > 1 else True  # None: where there is no terminal
        bar = tqdm(total=parts.count, initial=parts.count - left, unit=unit, disable=hidden, dynamic_ncols=True)
        keep = _Keeper(parts, finish, stack.enter_context(bar))
        for number, first in enumerate(missing):
            dog.feed(f"at {unit} {first}", patience)
            keep.next(first, work(np.minimum(np.arange(first, first + size), parts.count - 1)))
            if stop(number):
                keep.last()
                raise Preempted(f"{stop.name}: what was done is kept; the same command goes on from there.")
        keep.last()
        dog.feed(f"waiting for the last {unit}", patience)
        parts.wait()


class _Keeper:
    """Keeps a batch once the next one is under way."""

    def __init__(self, parts: AbstractParts, finish: Finish, bar: Any):
        self._parts, self._finish, self._bar = parts, finish, bar
        self._began, self._evaluations = time.monotonic(), 0
        self._under_way: tuple[int, Mapping[str, Array | None]] | None = None

    def next(self, first: int, arrays: Mapping[str, Array | None]) -> None:
        self.last()
        self._under_way = first, arrays

    def last(self) -> None:
        if self._under_way is None:
            return
        first, arrays = self._under_way
        size, self._under_way = self._parts.size(first), None
        found = {name: on_host(array)[:size] for name, array in arrays.items() if array is not None}
        self._parts.keep(first, self._finish(np.arange(first, first + size), found))
        if "evaluations" in found:
            self._evaluations += int(found["evaluations"].sum())
            rate = self._evaluations / max(time.monotonic() - self._began, 1e-9)
            self._bar.set_postfix({"evaluations/s": f"{rate:.3g}"}, refresh=False)
        self._bar.update(size)


def split(placement: AbstractPlacement, tree: Any) -> Any:
    """Host arrays with a row for each sample of a batch, the same in every process, over the devices."""
    return placement.send(jax.tree.map(lambda x: np.asarray(x)[placement.rows(len(x))], tree))


def split_keys(placement: AbstractPlacement, key: PRNGKey, rows: np.ndarray) -> PRNGKeys:
    """`solvers.sample_keys` of consecutive rows, the last perhaps repeated, over the devices: sample i has its key on all."""
    first = int(rows[0])
    keys = sample_keys(key, len(rows), first=first)
    data = np.asarray(jax.random.key_data(keys))[rows - first]
    return jax.random.wrap_key_data(split(placement, data), impl=str(jax.random.key_impl(keys)))


def laid_out(placement: AbstractPlacement, tree: T) -> T:
    """The arrays of a process or a score where the placement has them; those that are there already stay."""
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf, placement.shardings(leaf)) if isinstance(leaf, jax.Array) else leaf, tree
    )


def by_row(rows: np.ndarray, tree: T) -> T:
    """The given rows of every array."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], tree)
