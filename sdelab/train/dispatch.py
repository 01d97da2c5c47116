"""Several training steps in one call of the device, and a host that stays a little ahead of it."""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdelab._typing import PRNGKey
from sdelab.data import Batches
from sdelab.train.placement import AbstractPlacement, Mean, Step
from sdelab.train.profile import NoTrace, Trace
from sdelab.train.step import METRICS, Batch, TrainStep
from sdelab.train.window import Carry, Window, empty_window, with_window

AHEAD = 2
"""Calls that may be under way: one that computes, and one that waits for it."""


class Dispatcher:
    """Advances the carry by calls of the compiled step.

    `make_train_step(mean)` is the pure step of the experiment; `trace` records some calls. A call returns while the device
    still computes, so the host makes the next batch meanwhile; it waits as soon as more than `AHEAD` calls are under way,
    so that time on the host is time on the device, up to that.
    """

    def __init__(
        self,
        placement: AbstractPlacement,
        make_train_step: Callable[[Mean], TrainStep],
        batches: Batches,
        root_key: PRNGKey,
        trace: Trace | NoTrace | None = None,
    ):
        self._placement, self._batches, self._key = placement, batches, root_key
        self._trace = NoTrace() if trace is None else trace
        self._rows = placement.rows(batches.batch_size)
        self._single = placement.compile(single_step(make_train_step))
        self._several = placement.compile(lambda mean: with_token(scanned(with_window(make_train_step(mean)))))
        self._new_window = placement.maker(lambda: empty_window(METRICS))
        self._under_way: collections.deque[Any] = collections.deque()
        self._compiled: set[bool] = set()

    def is_compiled(self, count: int) -> bool:
        """Whether a call of `count` steps has been made before; if not, it takes as long as the compiler does."""
        return (count == 1) in self._compiled

    def __call__(self, carry: Carry, first: int, count: int) -> Carry:
        """The running carry after the updates number `first` + 1 to `first` + `count`."""
        self._trace.begin(first, count)
        with jax.profiler.StepTraceAnnotation("train", step_num=first):
            if count == 1:
                carry, token = self._single(carry, self._placement.send(self._batch(first)), self._key)
            else:
                stacked = jax.tree.map(lambda *rows: np.stack(rows), *(self._batch(first + i) for i in range(count)))
                carry, token = self._several(carry, self._placement.send(stacked, axis=1), self._key)
        self._trace.end(first + count, token)
        self._compiled.add(count == 1)
        self._under_way.append(token)
        if len(self._under_way) > AHEAD:
            jax.block_until_ready(self._under_way.popleft())
        return carry

    def new_window(self) -> Window:
        """The window before any step, running."""
        return self._placement.enter(self._new_window())

    def _batch(self, step: int) -> dict[str, Any]:
        batch = self._batches.batch(step)
        return batch if len(self._rows) == self._batches.batch_size else {k: v[self._rows] for k, v in batch.items()}


def plan(start: int, steps: int, events: Sequence[int], together: int) -> Iterator[tuple[int, int]]:
    """`(first, count)` of every dispatch from `start` to `steps`: `together` steps, or 1 where an event would fall inside.

    `events` are periods, in steps, after which the host has something to do. No third size: each would be compiled.
    """
    while start < steps:
        due = min([steps, *(start // every * every + every for every in events)])
        count = together if start + together <= due else 1
        yield start, count
        start += count


def single_step(make_train_step: Callable[[Mean], TrainStep]) -> Callable[[Mean], Step]:
    """What a placement compiles for calls of one step: takes a batch."""
    return lambda mean: with_token(with_window(make_train_step(mean)))


def scanned(step: Callable[[Carry, Batch, PRNGKey], Carry]) -> Callable[[Carry, Batch, PRNGKey], Carry]:
    """As many steps as the batches, stacked along a leading axis, are."""

    def steps(carry: Carry, batches: Batch, root_key: PRNGKey) -> Carry:
        return jax.lax.scan(lambda carry, batch: (step(carry, batch, root_key), None), carry, batches)[0]

    return steps


def with_token(step: Callable[[Carry, Batch, PRNGKey], Carry]) -> Callable[[Carry, Batch, PRNGKey], tuple[Carry, Any]]:
    """The step that also returns a number to wait for: the carry's own buffers are gone with the next call."""

    def tokened(carry: Carry, batch: Batch, root_key: PRNGKey) -> tuple[Carry, Any]:
        carry = step(carry, batch, root_key)
        return carry, carry["state"]["step"].astype(jnp.float32)

    return tokened
