"""The published trainings of Karras et al. (2022), https://arxiv.org/abs/2206.00364, config F of table 2, by their code.

https://github.com/NVlabs/edm, `train.py` and the table of training configurations in its README. The published code sets
gradients that are not finite to numbers; a run here stops at them.
"""

from collections.abc import Mapping
from typing import Any

from sdelab.cli.base_config import Sections, composed
from sdelab.cli.parts.score_sde import CENTRED
from sdelab.nn import presets

IMAGES = 200_000_000
"""Of a training."""
RAMP_UP = 10_000_000
"""Images in which the learning rate rises from 0."""


def ddpmpp(*, multipliers: tuple[int, ...] = (2, 2, 2), dropout: float = 0.13, classes: int = 0) -> dict[str, Any]:
    """`--arch=ddpmpp`, called VP in the paper's tables."""
    return {
        "name": "song_unet",
        "channels": 128,
        "multipliers": multipliers,
        "blocks": 4,
        "attention_resolutions": (16,),
        "embedding": "positional",
        "encoder": "standard",
        "decoder": "standard",
        "noise_multiplier": 1,
        "classes": classes,
        "augmentations": 9,
        "dropout": dropout,
    }


def ncsnpp(**settings: Any) -> dict[str, Any]:
    """`--arch=ncsnpp`, called VE in the paper's tables; settings are those of `ddpmpp`."""
    changes = {"embedding": "fourier", "encoder": "residual", "fir": (1, 3, 3, 1), "noise_multiplier": 2}
    return {**ddpmpp(**settings), **changes}


def cifar10(network: Mapping[str, Any]) -> Any:
    """A training on CIFAR-10, with labels if the network takes them."""
    own = training(batch_size=512, learning_rate=1e-3, augment=0.12)
    return composed(PROCESS, own, {"data": {"name": "cifar10"}, "model": network})


def ffhq64(network: Mapping[str, Any]) -> Any:
    """A training on the 70 000 images of FFHQ at 64 x 64, as `dataset_tool.py` of the published code makes them."""
    own = training(batch_size=256, learning_rate=2e-4, augment=0.15)
    data = {"name": "images", "path": "ffhq-64x64.zip", "size": 64, "held_out": 0}
    return composed(PROCESS, own, {"data": data, "model": network})


def imagenet64() -> Any:
    """The training of the network of Dhariwal and Nichol on ImageNet at 64 x 64 with labels, made by the same tool."""
    own = training(batch_size=4096, learning_rate=1e-4, images=2_500_000_000, half_life=50_000_000)
    data = {"name": "images", "path": "imagenet-64x64.zip", "size": 64, "held_out": 0}
    network = {"name": "adm", **presets.adm_64(), "out_channels": 3, "dtype": "bfloat16"}
    return composed(PROCESS, own, {"data": data, "model": network})


PROCESS: Sections = {
    "sde": {"name": "EDM", "t_min": 0.002, "t_max": 80.0},
    "preconditioner": {"name": "edm", "data_std": 0.5},
    "loss": {
        "weighting": "edm",
        "data_std": 0.5,
        "error": "data",
        "times": "log_normal",
        "mean": -1.2,
        "std": 1.2,
        "reduction": "sum",
    },
    "data": CENTRED,
}
"""The process, preconditioner and loss of the paper's table 1."""


def training(
    *, batch_size: int, learning_rate: float, augment: float = 0.0, images: int = IMAGES, half_life: int = 500_000
) -> Sections:
    """Optimiser, average, augmentation and length, which the published code counts in images."""
    return {
        "augment": {"name": "edm", "probability": augment} if augment else {"name": "none"},
        "optim": {
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "warmup_steps": RAMP_UP // batch_size,
            "clip_norm": 0.0,  # no bound
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
        },
        "ema": {"name": "half_life", "half_life": half_life, "ramp_up": 0.05},
        "run": {
            "steps": images // batch_size,
            "log_every": 50,
            "checkpoint_every": 5_000,
            "keep": 3,
            "placement": "jit",
        },
    }
