"""VP on two interleaved half circles.

Command:  sdelab train --config configs/toy/two_moons.py --workdir runs/toy/two_moons
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out points, unmeasured
"""

from typing import Any

from sdelab.cli.base_config import toy_config


def get_config() -> Any:
    config = toy_config("two_moons", "VP")
    config.sde.beta_min, config.sde.beta_max = 0.1, 20.0
    config.optim.batch_size = 512
    return config
