"""Several training steps in one call of the device, and a host that stays a little ahead of it, batches and all."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from sdelab._typing import PRNGKey
from sdelab.data import Batches, Prefetch
from sdelab.train.placement import AbstractPlacement, Mean, Step
from sdelab.train.profile import NoTrace, Trace
from sdelab.train.step import METRICS, Batch, TrainStep
from sdelab.train.window import Carry, Window, empty_window, with_window

AHEAD = 2
"""Calls that may be under way: one that computes, and one that waits for it."""

Call: TypeAlias = tuple[int, int]
"""`(first, count)`: a call of the device makes the updates number `first` + 1 to `first` + `count`."""


class Dispatcher:
    """Advances the carry by calls of the compiled step.

    `make_train_step(mean)` is the pure step of the experiment; `trace` records some calls. A call returns while the device
    still computes, so the host goes on meanwhile; it waits as soon as more than `AHEAD` calls are under way, so that time
    on the host is time on the device, up to that.
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
        self._several = placement.compile(lambda mean: with_token(scanned(with_window(make_train_step(mean)))), axis=1)
        self._new_window = placement.maker(lambda: empty_window(METRICS))
        self._under_way: collections.deque[Any] = collections.deque()
        self._compiled: set[bool] = set()

    def is_compiled(self, count: int) -> bool:
        """Whether a call of `count` steps has been made before; if not, it takes as long as the compiler does."""
        return (count == 1) in self._compiled

    def prefetch(self, calls: Iterable[Call], *, depth: int = 2, threads: int = 1) -> Prefetch:
        """The batches of the calls in their order, made and brought to the devices in the background: see `Prefetch`.

        Of each batch a process makes its own rows only.
        """
        return Prefetch(self._batch, calls, place=self._send, depth=depth, threads=threads)

    def __call__(self, carry: Carry, batch: Any, first: int, count: int) -> Carry:
        """The running carry after the updates number `first` + 1 to `first` + `count`, by their batch of `prefetch`."""
        self._trace.begin(first, count)
        with jax.profiler.StepTraceAnnotation("train", step_num=first):
            carry, token = (self._single if count == 1 else self._several)(carry, batch, self._key)
        self._trace.end(first + count, token)
        self._compiled.add(count == 1)
        self._under_way.append(token)
        if len(self._under_way) > AHEAD:
            jax.block_until_ready(self._under_way.popleft())
        return carry

    def new_window(self) -> Window:
        """The window before any step, running."""
        return self._placement.enter(self._new_window())

    def _batch(self, call: Call) -> list[dict[str, Any]]:
        first, count = call
        return [self._batches.batch(step, self._rows) for step in range(first, first + count)]

    def _send(self, batches: list[dict[str, Any]]) -> Any:
        if len(batches) == 1:
            return self._placement.send(batches[0])
        return self._placement.send(jax.tree.map(lambda *rows: np.stack(rows), *batches), axis=1)


def plan(start: int, steps: int, events: Sequence[int], together: int) -> Iterator[Call]:
    """Every call from `start` to `steps`: `together` steps, or 1 where an event would fall inside.

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
