"""What configs start from. Config files are loaded by path, from anywhere, so what they share is in the package.

A config file defines `get_config()`, which returns a `ConfigDict` of the sections that `sdelab.train.build` reads.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from ml_collections import ConfigDict

Sections: TypeAlias = Mapping[str, Any]
"""Sections of a config by their names, each a mapping."""


def composed(*parts: Sections) -> Any:
    """A `ConfigDict` of the parts' sections, with seed 0; where two say the same key, the later one holds."""
    config = ConfigDict({"seed": 0})
    for part in parts:
        config.update(ConfigDict(part))
    return config


def image_config(data: str, sde: str) -> Any:
    """A `ConfigDict`: class-conditional compact U-Net on images in [-1, 1]."""
    return _config(
        data=data,
        sde=sde,
        model={"name": "unet", "channels": 32, "multipliers": (1, 3), "blocks": 1, "classes": 10, "dropout": 0.0},
        preconditioner={"name": "edm", "data_std": 0.8},  # root mean square of digits in [-1, 1]
    )


def toy_config(data: str, sde: str) -> Any:
    """A `ConfigDict`: residual MLP on points in the plane of about unit scale."""
    return _config(
        data=data,
        sde=sde,
        model={"name": "mlp", "width": 128, "depth": 3, "classes": 0, "dropout": 0.0},
        preconditioner={"name": "edm", "data_std": 1.0},
    )


def _config(*, data: str, sde: str, model: dict[str, Any], preconditioner: dict[str, Any]) -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data": {"name": data},
            "augment": {"name": "none"},
            "sde": {"name": sde},
            "model": model,
            "preconditioner": preconditioner,
            "loss": {"weighting": "sigma_squared", "t_min": 1e-5},
            "optim": {
                "batch_size": 128,
                "learning_rate": 1e-3,
                "warmup_steps": 200,
                "clip_norm": 1.0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
            },
            "ema": {"name": "warmup", "decay": 0.999},
            "run": {"steps": 3000, "log_every": 50, "checkpoint_every": 1000, "keep": 3, "tensorboard": False},
        }
    )
