"""Signals that ask a run to stop: noted when they come, obeyed between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

PREEMPTED = 42
"""Exit code of a run that was asked to stop, saved its state and can be resumed."""


class Preempted(Exception):
    """Training stopped on SIGTERM or Ctrl-C, after its state was saved."""


class StopRequest:
    """Within the context, `bool(request)` says whether SIGTERM or SIGINT has come.

    A second signal of the kind acts as it did before the context, so that a hung run can be interrupted.
    """

    def __init__(self):
        self.name = ""
        self._former: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.name)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may not install handlers
            for kind in (signal.SIGTERM, signal.SIGINT):
                self._former[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for kind_of_signal, handler in self._former.items():
            signal.signal(kind_of_signal, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        signal.signal(number, self._former[signal.Signals(number)])
