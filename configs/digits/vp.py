"""VP on scikit-learn's digits, class-conditional.

Command:  sdelab train --config configs/digits/vp.py --workdir runs/digits/vp
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out images, unmeasured
"""

from typing import Any

from sdelab.cli.base_config import image_config


def get_config() -> Any:
    config = image_config("digits", "VP")
    config.sde.beta_min, config.sde.beta_max = 0.1, 20.0
    return config
