"""A trace of some of the steps, for TensorBoard's profiler, XProf or Perfetto."""

import contextlib
from pathlib import Path
from typing import Any

import jax


class Trace(contextlib.AbstractContextManager[Any]):
    """Records the calls of the device that hold the updates `first` to `last`, from 1, into `directory`.

    A step that compiles is worth a trace of its own: choose steps after it. Errors: `first` < 1; `last` < `first`.
    """

    def __init__(self, directory: Path, first: int, last: int):
        if not 1 <= first <= last:
            raise ValueError(f"profile = {first}:{last} is not accepted; accepted: FIRST:LAST with 1 <= FIRST <= LAST.")
        self._directory, self._first, self._last = directory, first, last
        self._running = False

    def begin(self, first: int, count: int) -> None:
        """Before the call that makes the updates after `first`."""
        if not self._running and self._first <= first + count and first < self._last:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def end(self, step: int, token: Any) -> None:
        """After the call that ends at `step`; `token` is something it returned."""
        if self._running and step >= self._last:
            jax.block_until_ready(token)
            self._stop()

    def __exit__(self, *error: Any) -> None:
        if self._running:
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False


class NoTrace(contextlib.AbstractContextManager[Any]):
    """Records nothing."""

    def begin(self, first: int, count: int) -> None:
        return None

    def end(self, step: int, token: Any) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None
