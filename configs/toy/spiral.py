"""VP on two arms of a spiral.

Command:  sdelab train --config configs/toy/spiral.py --workdir runs/toy/spiral
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out points, unmeasured
"""

from typing import Any

from sdelab.cli.parts import toys


def get_config() -> Any:
    return toys.vp("spiral")
