"""Signals that ask a run to stop: noted when they come, obeyed between two steps."""

import abc
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from jax.experimental import multihost_utils

PREEMPTED = 42
"""Exit code of a run that was asked to stop, saved its state and can be resumed."""


class Preempted(Exception):
    """Training, or sampling, stopped on SIGTERM or Ctrl-C, after what it had was saved."""


class AbstractStopRequest(abc.ABC):
    """Within the context, says whether the run was asked to stop."""

    name: str = ""

    @abc.abstractmethod
    def __call__(self, dispatch: int) -> bool:
        """Whether to stop after call number `dispatch` of the device, which increases by one: the same in all processes."""

    @abc.abstractmethod
    def __enter__(self) -> Self: ...

    @abc.abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoStopRequest(AbstractStopRequest):
    """For work of which nothing could be kept: signals act as ever."""

    def __call__(self, dispatch: int) -> bool:
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        return None


class StopRequest(AbstractStopRequest):
    """Of a process alone: SIGTERM or SIGINT has come.

    A second signal of the kind acts as it did before the context, so that a hung run can be interrupted.
    """

    def __init__(self):
        self._former: dict[signal.Signals, Any] = {}

    def __call__(self, dispatch: int) -> bool:
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


class SharedStopRequest(AbstractStopRequest):
    """Of one process of several: SIGTERM or SIGINT has come to any of them. All stop after the same step.

    JAX has taken SIGTERM for itself when the processes joined, and makes them agree. SIGINT is passed on as SIGTERM;
    a second one acts as before.
    """

    def __init__(self):
        self._former: Any = None

    def __call__(self, dispatch: int) -> bool:
        if multihost_utils.reached_preemption_sync_point(dispatch):
            self.name = "SIGTERM"
        return bool(self.name)

    def __enter__(self) -> Self:
        self._former = signal.signal(signal.SIGINT, self._pass_on)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        signal.signal(signal.SIGINT, self._former)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._former)
        os.kill(os.getpid(), signal.SIGTERM)
