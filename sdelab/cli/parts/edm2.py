"""The published trainings of Karras et al. (2024), https://arxiv.org/abs/2312.02696, config G, by their code.

https://github.com/NVlabs/edm2, `train_edm2.py` and `training/training_loop.py`. The published code computes in float16, and sets
gradients that are not finite to numbers; a run here computes in bfloat16, and stops at them.
"""

from typing import Any

from sdelab.cli.base_config import composed
from sdelab.cli.parts import edm
from sdelab.nn import EDM2_SIZES

BATCH = 2048
RAMP_UP = 10_000_000
"""Images in which the learning rate rises from 0."""
SNAPSHOTS = 8 * 2**20
"""Images from one snapshot of the averages to the next: what `sdelab ema` makes others of."""
TRAININGS = {
    "S": {"learning_rate": 0.0100, "images": 1024 * 2**20},
    "M": {"learning_rate": 0.0090, "images": 2048 * 2**20},
    "L": {"learning_rate": 0.0080, "images": 1024 * 2**20},
    "XL": {"learning_rate": 0.0070, "images": 640 * 2**20},
}
"""On ImageNet at 64 x 64, by the sizes of `EDM2_SIZES`."""


def imagenet64(size: str) -> Any:
    """A training on ImageNet at 64 x 64 with labels, as `dataset_tool.py` of the published code makes it."""
    images, learning_rate = TRAININGS[size]["images"], TRAININGS[size]["learning_rate"]
    own = {
        "data": {"name": "images", "path": "img64.zip", "size": 64, "held_out": 0},
        "model": {"name": "edm2_unet", "classes": 1000, "dtype": "bfloat16", **EDM2_SIZES[size]},
        "loss": {"uncertainty": "edm2", "mean": -0.8, "std": 1.6},
        "optim": {
            "batch_size": BATCH,
            "learning_rate": learning_rate,
            "warmup_steps": RAMP_UP // BATCH,
            "decay_after": 35_000,
            "clip_norm": 0.0,  # no bound
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-8,
        },
        "ema": {"name": "power", "sigma_rel": 0.05},
        "averages": {"wide": {"name": "power", "sigma_rel": 0.10}},
        "augment": {"name": "none"},
        "run": {
            "steps": images // BATCH,
            "log_every": 64,
            "checkpoint_every": SNAPSHOTS // BATCH,
            "snapshot_every": SNAPSHOTS // BATCH,
            "keep": 3,
            "placement": "jit",
        },
    }
    return composed(edm.PROCESS, own)
