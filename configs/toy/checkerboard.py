"""VP on a checkerboard.

Command:  sdelab train --config configs/toy/checkerboard.py --workdir runs/toy/checkerboard
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out points, unmeasured
"""

from typing import Any

from sdelab.cli.parts import toys


def get_config() -> Any:
    return toys.vp("checkerboard")
