"""Sub-VP with the deep DDPM++, on CIFAR-10 without labels: score_sde's `subvp/cifar10_ddpmpp_deep_continuous`.

Command:  sdelab train --config configs/cifar10/subvp_ddpmpp_deep.py --workdir runs/cifar10/subvp_ddpmpp_deep
Sampling: sdelab sample --workdir runs/cifar10/subvp_ddpmpp_deep --solver euler_maruyama --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: FID 2.41, IS 9.57 (table 3 of Song et al., 2021); by the probability flow FID 2.92 and 2.99 bits/dim (table 2)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.sub_vp(), presets.ddpmpp_deep(), steps=score_sde.STEPS_DEEP)
