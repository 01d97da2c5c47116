"""VP on eight Gaussians on a circle.

Command:  sdelab train --config configs/toy/eight_gaussians.py --workdir runs/toy/eight_gaussians
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out points, unmeasured
"""

from typing import Any

from sdelab.cli.parts import toys


def get_config() -> Any:
    return toys.vp("eight_gaussians")
