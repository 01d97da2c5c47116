"""What ends a run of several processes when one of them hangs: its heart beats on, and the others wait for ever."""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

import jax

GRACE = 5.0
"""Seconds after which the process is ended from below Python, if Python itself is stuck."""


class Watchdog(contextlib.AbstractContextManager[Any]):
    """Within the context, ends the process, with a message and the stacks of all threads, unless fed in time.

    `patience` in seconds, from one feeding to the next, and `patience_at_start` for the first, which compiles. Every
    process watches itself: one that hangs stops being fed, and so do those that wait for it.
    """

    def __init__(self, patience: float, patience_at_start: float):
        self._patience, self._doing = patience, "starting"
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._allow(patience_at_start)

    def feed(self, doing: str, patience: float | None = None) -> None:
        """Says that the process lives and what it does next, for which it has `patience` seconds or the usual ones."""
        self._doing = doing
        self._allow(self._patience if patience is None else patience)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._closed.set()
        faulthandler.cancel_dump_traceback_later()
        self._thread.join()

    def _allow(self, seconds: float) -> None:
        self._seconds, self._deadline = seconds, time.monotonic() + seconds
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True)

    def _watch(self) -> None:
        while not self._closed.wait(min(0.5, max(0.01, self._deadline - time.monotonic()))):
            if time.monotonic() >= self._deadline:
                print(  # noqa: T201
                    f"sdelab: process {jax.process_index()} on {socket.gethostname()} hangs: nothing for "
                    f"{self._seconds:g} seconds while {self._doing}; ending. The stacks of its threads:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(all_threads=True)
                os._exit(1)


class NoWatchdog(contextlib.AbstractContextManager[Any]):
    """For a process alone: whoever started it can end it."""

    def feed(self, doing: str, patience: float | None = None) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None
