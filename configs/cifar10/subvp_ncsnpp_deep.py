"""Sub-VP with the deep NCSN++, on CIFAR-10 without labels: score_sde's `subvp/cifar10_ncsnpp_deep_continuous`.

Command:  sdelab train --config configs/cifar10/subvp_ncsnpp_deep.py --workdir runs/cifar10/subvp_ncsnpp_deep
Sampling: sdelab sample --workdir runs/cifar10/subvp_ncsnpp_deep --solver euler_maruyama --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: no number in tables 2 and 3 of Song et al. (2021)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.sub_vp(), {**presets.ncsnpp_vp(), "blocks": 8}, steps=score_sde.STEPS_DEEP)
