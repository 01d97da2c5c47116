"""VP on three concentric circles.

Command:  sdelab train --config configs/toy/rings.py --workdir runs/toy/rings
Hardware: two CPU cores
Time:     unmeasured
Expected: bits/dim of held-out points, unmeasured
"""

from typing import Any

from sdelab.cli.parts import toys


def get_config() -> Any:
    return toys.vp("rings")
