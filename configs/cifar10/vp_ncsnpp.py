"""VP with NCSN++, on CIFAR-10 without labels: score_sde's `vp/cifar10_ncsnpp_continuous`.

Command:  sdelab train --config configs/cifar10/vp_ncsnpp.py --workdir runs/cifar10/vp_ncsnpp
Sampling: sdelab sample --workdir runs/cifar10/vp_ncsnpp --solver euler_maruyama --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: no number in tables 2 and 3 of Song et al. (2021)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.vp(), presets.ncsnpp_vp())
