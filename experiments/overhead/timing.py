"""Two ways of doing one thing, timed side by side."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from tqdm import tqdm


class Comparison(NamedTuple):
    """Medians in seconds, `ratio = ours / reference`, and the ratio that the comparison must not exceed."""

    name: str
    ours: float
    reference: float
    ratio: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.ratio <= self.limit


def compare(
    name: str, ours: Callable[[], float], reference: Callable[[], float], *, rounds: int, limit: float
) -> Comparison:
    """Medians of two measurements that take turns, so that both see the same machine.

    The order alternates from round to round: what runs second finds warmer caches, or a hotter processor.
    Each callable returns the seconds of one run; the first of each is not counted.
    """
    for run in (ours, reference):
        run()
    seconds: dict[Callable[[], float], list[float]] = {ours: [], reference: []}
    for round_ in tqdm(range(rounds), desc=name, unit="round"):
        for run in (ours, reference) if round_ % 2 == 0 else (reference, ours):
            seconds[run].append(run())
    median, baseline = (statistics.median(seconds[run]) for run in (ours, reference))
    return Comparison(name, median, baseline, median / baseline, limit)


def timed(function: Callable[..., Any], given: Callable[[], tuple[Any, ...]] = tuple) -> Callable[[], float]:
    """A run of `function`, until its arrays are there, in seconds; `given` makes its arguments, anew and before the clock."""

    def run() -> float:
        arguments = given()
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        return time.perf_counter() - start

    return run
