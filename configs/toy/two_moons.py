"""VP on two interleaved half circles.

Command:  sdelab train --config configs/toy/two_moons.py --workdir runs/toy/two_moons
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out points, unmeasured
"""

from typing import Any

from sdelab.cli.parts import toys


def get_config() -> Any:
    return toys.vp("two_moons")
