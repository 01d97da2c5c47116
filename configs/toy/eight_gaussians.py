"""VP on eight Gaussians on a circle.

Command:  sdelab train --config configs/toy/eight_gaussians.py --workdir runs/toy/eight_gaussians
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out points, unmeasured
"""

from typing import Any

from sdelab.cli.base_config import toy_config


def get_config() -> Any:
    config = toy_config("eight_gaussians", "VP")
    config.sde.beta_min, config.sde.beta_max = 0.1, 20.0
    config.optim.batch_size = 512
    return config
