"""VP on CIFAR-10 (JPEG), class-conditional, with flips. Needs cifar10-jpeg under $SDELAB_DATA.

Command:  sdelab train --config configs/cifar10_jpeg/vp.py --workdir runs/cifar10_jpeg/vp
Hardware: one GPU
Time:     unmeasured
Expected: bits/dim of held-out images, unmeasured; a number for CIFAR-10 (JPEG), not for CIFAR-10
"""

from typing import Any

from sdelab.cli.base_config import image_config


def get_config() -> Any:
    config = image_config("cifar10_jpeg", "VP")
    config.augment.name = "flip"
    config.sde.beta_min, config.sde.beta_max = 0.1, 20.0
    config.preconditioner.data_std = 0.5  # standard deviation of CIFAR-10 in [-1, 1]
    config.model.channels, config.model.multipliers, config.model.blocks = 128, (1, 2, 2), 2
    config.model.dropout = 0.1
    config.optim.learning_rate, config.optim.warmup_steps = 2e-4, 5000
    config.ema.decay = 0.9999
    config.run.steps, config.run.checkpoint_every = 200_000, 5_000
    return config
