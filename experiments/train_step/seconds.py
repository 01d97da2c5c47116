import statistics
from collections.abc import Callable
from typing import NamedTuple

from tqdm import tqdm


class Seconds(NamedTuple):
    """Of one run: on the wall, and of all cores together. The second hardly feels what else the machine does."""

    wall: float
    cores: float


def medians(sides: dict[str, Callable[[], Seconds]], rounds: int) -> dict[str, Seconds]:
    """Of runs that take turns; the order is reversed in every other round.

    A turn is two runs, of which the second counts: the first finds the caches, and memory that the system took away, as the other
    sides left them, which no run of a training does. The first turn of each side is not counted.
    """
    seconds: dict[str, list[Seconds]] = {name: [] for name in sides}
    for run in sides.values():
        run()
        run()
    for i in tqdm(range(rounds), unit="round", leave=False):
        for name, run in list(sides.items())[:: 1 if i % 2 == 0 else -1]:
            run()
            seconds[name].append(run())
    return {
        name: Seconds(*(statistics.median(column) for column in zip(*taken, strict=True)))
        for name, taken in seconds.items()
    }
