"""VP with DDPM's network, on CIFAR-10 without labels: score_sde's `vp/ddpm/cifar10_continuous`.

Command:  sdelab train --config configs/cifar10/vp_ddpm.py --workdir runs/cifar10/vp_ddpm
Sampling: sdelab sample --workdir runs/cifar10/vp_ddpm --solver euler_maruyama --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: by the probability flow FID 3.69 and 3.21 bits/dim (table 2 of Song et al., 2021)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.vp(), presets.ddpm())
