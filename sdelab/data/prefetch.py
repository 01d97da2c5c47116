import collections
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sdelab._checks import check_count


class Prefetch(contextlib.AbstractContextManager["Prefetch"], Iterator[Any]):
    """The batches of `steps` in their order, made by background threads ahead of their time.

    `make(step)` gives the batch of a step, or of whatever `steps` has, and `place(batch)` brings it to the devices; both
    run in the background, so that no batch may depend on another (`Batches.batch` is a pure function). At most `depth`
    batches are ready or in the making. An error in `make` or `place` is raised in place of its batch, and ends the iteration. Leaving the
    context drops what is not used and waits for what is in the making.

    One thread keeps up with sets in memory; decoding images takes more, and Pillow lets them run at a time. Threads
    were preferred to Grain's, which have the same throughput, and to its worker processes, which have about half of it for
    256 x 256 JPEG on two cores and outlive a killed run.

    `place` must not communicate between processes: `jax.make_array_from_process_local_data` does not, a `jax.device_put`
    to devices of other processes does.
    """

    def __init__(
        self,
        make: Callable[[Any], Any],
        steps: Iterable[Any],
        *,
        place: Callable[[Any], Any] = lambda batch: batch,
        depth: int = 2,
        threads: int = 1,
    ):
        check_count(depth=depth, threads=threads)
        self._make, self._place = make, place
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
        self._steps = iter(steps)
        self._ahead: collections.deque[Future[Any]] = collections.deque()
        self.waited = 0.0
        """Seconds that the caller has waited for batches so far."""
        for _ in range(depth):
            self._begin_next()

    def __next__(self) -> Any:
        if not self._ahead:
            raise StopIteration
        started = time.perf_counter()
        try:
            batch = self._ahead.popleft().result()
        except BaseException:
            self.close()
            raise
        self.waited += time.perf_counter() - started
        self._begin_next()
        return batch

    def close(self) -> None:
        """Ends the threads. What was not used is gone."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _begin_next(self) -> None:
        for step in self._steps:
            self._ahead.append(self._pool.submit(self._prepare, step))
            return

    def _prepare(self, step: Any) -> Any:
        return self._place(self._make(step))
