"""VE on scikit-learn's digits, class-conditional.

Command:  sdelab train --config configs/digits/ve.py --workdir runs/digits/ve
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out images, unmeasured
"""

from typing import Any

from sdelab.cli.base_config import image_config


def get_config() -> Any:
    config = image_config("digits", "VE")
    config.sde.sigma_min, config.sde.sigma_max = 0.01, 10.0  # the largest distance between two digits is 9.1
    return config
