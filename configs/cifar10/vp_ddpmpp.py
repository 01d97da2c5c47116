"""VP with DDPM++, on CIFAR-10 without labels: score_sde's `vp/cifar10_ddpmpp_continuous`.

Command:  sdelab train --config configs/cifar10/vp_ddpmpp.py --workdir runs/cifar10/vp_ddpmpp
Sampling: sdelab sample --workdir runs/cifar10/vp_ddpmpp --solver euler_maruyama --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: FID 2.55, IS 9.58 (table 3 of Song et al., 2021); by the probability flow FID 3.93 and 3.16 bits/dim (table 2)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.vp(), presets.ddpmpp())
