"""DDPM, on its table of 1 000 noise levels, on CIFAR-10 without labels: score_sde's `vp/ddpm/cifar10`.

Command:  sdelab train --config configs/cifar10/vp_ddpm_discrete.py --workdir runs/cifar10/vp_ddpm_discrete
Sampling: sdelab sample --workdir runs/cifar10/vp_ddpm_discrete --solver ancestral_ddpm --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: by the probability flow FID 3.37 and 3.28 bits/dim (table 2 of Song et al., 2021); FID 3.24 (README of
          https://github.com/yang-song/score_sde_pytorch)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.ddpm(), presets.ddpm())
