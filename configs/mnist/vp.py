"""VP on MNIST, class-conditional, small enough for ten minutes of two cores. Needs the IDX files under $SDELAB_DATA/mnist.

Command:  sdelab train --config configs/mnist/vp.py --workdir runs/mnist/vp
Hardware: two CPU cores
Time:     9 min 46 s (two cores with AVX2, compilation and pictures included)
Expected: digits of every class in `pictures/samples`, about nine of ten of the 60 there legible (by eye)
"""

from typing import Any

from sdelab.cli.base_config import image_config


def get_config() -> Any:
    config = image_config("mnist", "VP")
    config.sde.beta_min, config.sde.beta_max = 0.1, 20.0
    config.preconditioner.data_std = 0.96  # root mean square of MNIST in [-1, 1]
    config.model.channels, config.model.multipliers = 8, (1, 4, 8)  # full resolution is what a CPU is slow at
    # EDM's objective, at the levels where strokes become digits: a short run has no steps to spare for the others.
    config.loss = {
        "weighting": "edm",
        "data_std": 0.96,
        "times": "log_normal",
        "mean": 0.0,
        "std": 1.4,
        "layout": "stratified",
    }
    config.optim.batch_size, config.optim.learning_rate, config.optim.warmup_steps = 64, 2e-3, 100
    config.run.steps, config.run.checkpoint_every, config.run.sample_every = 2000, 500, 250
    return config
