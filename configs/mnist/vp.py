"""VP on MNIST, class-conditional. Needs the IDX files under $SDELAB_DATA/mnist.

Command:  sdelab train --config configs/mnist/vp.py --workdir runs/mnist/vp
Hardware: one GPU
Time:     unmeasured
Expected: bits/dim of held-out images, unmeasured
"""

from typing import Any

from sdelab.cli.base_config import image_config


def get_config() -> Any:
    config = image_config("mnist", "VP")
    config.sde.beta_min, config.sde.beta_max = 0.1, 20.0
    config.preconditioner.data_std = 0.96  # root mean square of MNIST in [-1, 1]
    config.model.channels, config.model.multipliers, config.model.blocks = 64, (1, 2, 4), 2
    config.optim.learning_rate, config.optim.warmup_steps = 2e-4, 1000
    config.ema.decay = 0.9999
    config.run.steps, config.run.checkpoint_every = 50_000, 5_000
    return config
