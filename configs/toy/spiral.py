"""VP on two arms of a spiral.

Command:  sdelab train --config configs/toy/spiral.py --workdir runs/toy/spiral
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out points, unmeasured
"""

from typing import Any

from sdelab.cli.base_config import toy_config


def get_config() -> Any:
    config = toy_config("spiral", "VP")
    config.sde.beta_min, config.sde.beta_max = 0.1, 20.0
    config.optim.batch_size = 512
    return config
