"""What GPUs can do at most, and what share of it a run is."""

from typing import NamedTuple

from experiments.train_step.seconds import Seconds


class Peak(NamedTuple):
    """Dense products a second, in FLOP/s: of bfloat16, and of float32 rounded to TF32, JAX's default for it."""

    bfloat16: float
    tf32: float
    source: str


SXM = Peak(989.4e12, 494.7e12, "https://resources.nvidia.com/en-us-gpu-resources/h100-datasheet-24306")
"""The published rates are those with structured sparsity, twice as many."""

PEAKS = {
    "NVIDIA H100 80GB HBM3": SXM,
    "NVIDIA H100 PCIe": Peak(756.5e12, 378e12, SXM.source),
    "NVIDIA H200": SXM._replace(source="https://www.nvidia.com/en-us/data-center/h200/"),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 156e12, "https://www.nvidia.com/en-us/data-center/a100/"),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 156e12, "https://www.nvidia.com/en-us/data-center/a100/"),
}
"""By the names that JAX has for devices."""


class Rate(NamedTuple):
    """Of one side: `flops` a second, `share` of the peak, None where it is not known."""

    images: float
    flops: float
    share: float | None


def rate(seconds: Seconds, batch: int, flops: int, device: str, dtype: str) -> Rate:
    """`flops` of one call on the whole batch, the same count for all sides."""
    peak = PEAKS.get(device)
    highest = None if peak is None else peak.bfloat16 if dtype == "bfloat16" else peak.tf32
    reached = flops / seconds.wall
    return Rate(batch / seconds.wall, reached, None if highest is None else reached / highest)


def words(rate: Rate) -> str:
    """`1234 images/s, 56.7 TFLOP/s, 8.9 %`."""
    share = "" if rate.share is None else f", {100.0 * rate.share:.1f} %"
    return f"{rate.images:.0f} images/s, {rate.flops / 1e12:.3g} TFLOP/s{share}"
