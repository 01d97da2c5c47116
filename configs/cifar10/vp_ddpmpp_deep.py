"""VP with the deep DDPM++, on CIFAR-10 without labels: score_sde's `vp/cifar10_ddpmpp_deep_continuous`.

Command:  sdelab train --config configs/cifar10/vp_ddpmpp_deep.py --workdir runs/cifar10/vp_ddpmpp_deep
Sampling: sdelab sample --workdir runs/cifar10/vp_ddpmpp_deep --solver euler_maruyama --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: FID 2.41, IS 9.68 (table 3 of Song et al., 2021); by the probability flow FID 3.08 and 3.13 bits/dim (table 2)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.vp(), presets.ddpmpp_deep(), steps=score_sde.STEPS_DEEP)
