"""DDPM with DDPM++, on its table of 1 000 noise levels, on CIFAR-10 without labels: score_sde's `vp/cifar10_ddpmpp`.

Command:  sdelab train --config configs/cifar10/vp_ddpmpp_discrete.py --workdir runs/cifar10/vp_ddpmpp_discrete
Sampling: sdelab sample --workdir runs/cifar10/vp_ddpmpp_discrete --solver ancestral_ddpm --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: FID 2.78, IS 9.64 (table 3 of Song et al., 2021)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.ddpm(), presets.ddpmpp())
