"""Chips by what their makers publish, and the least time that a program needs on them."""

import dataclasses
from collections.abc import Sequence

from sdelab.train.collectives import Collective

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, by its published peak rates.

    Fields: `memory` in bytes, of which the TPU's compiler keeps a quarter GiB to itself or more; `flops`, of bfloat16
    products a second, which float32 ones are too at JAX's default precision; `bandwidth` of the memory and `interconnect`
    to other chips, out of the chip over all its links, in bytes a second; `source` of the numbers.
    """

    name: str
    memory: int
    flops: float
    bandwidth: float
    interconnect: float
    source: str


CHIPS = {
    chip.name: chip
    for chip in (
        # links are published both ways but for v4: 6 of 50 GB/s, Jouppi et al. (2023), https://arxiv.org/abs/2304.01433
        Chip("v4", 32 * GIB, 275e12, 1200e9, 300e9, "https://cloud.google.com/tpu/docs/v4"),
        Chip("v5e", 16 * GIB, 197e12, 819e9, 200e9, "https://cloud.google.com/tpu/docs/v5e"),
        Chip("v5p", 95 * GIB, 459e12, 2765e9, 600e9, "https://cloud.google.com/tpu/docs/v5p"),
        Chip("v6e", 32 * GIB, 918e12, 1638e9, 400e9, "https://cloud.google.com/tpu/docs/v6e"),
    )
}
"""By the names that topologies have for them."""


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds that a step takes at the peak rates of a chip: of its products, its memory and its links."""

    compute: float
    memory: float
    communication: float

    @property
    def shortest(self) -> float:
        """Everything at once: no step is faster."""
        return max(self.compute, self.memory, self.communication)

    @property
    def longest(self) -> float:
        """One after the other, each at its peak."""
        return self.compute + self.memory + self.communication

    @property
    def bound(self) -> str:
        """What takes longest."""
        times = {"compute": self.compute, "memory": self.memory, "communication": self.communication}
        return max(times, key=lambda name: times[name])


def predict(chip: Chip, flops: float, accessed: float, collectives: Sequence[Collective]) -> StepTime:
    """The time of a program of so many FLOPs and bytes of memory traffic, a chip. Williams et al. (2009),
    https://doi.org/10.1145/1498765.1498785."""
    return StepTime(
        compute=flops / chip.flops,
        memory=accessed / chip.bandwidth,
        communication=sum(c.traffic for c in collectives) / chip.interconnect,
    )
