"""SMLD with DDPM's network, on its table of 1 000 noise levels, on CIFAR-10 without labels: score_sde's `ve/cifar10_ddpm`.

Command:  sdelab train --config configs/cifar10/ve_ddpm_discrete.py --workdir runs/cifar10/ve_ddpm_discrete
Sampling: sdelab sample --workdir runs/cifar10/ve_ddpm_discrete --solver predictor_corrector --snr 0.16 --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured
Expected: no number in tables 2 and 3 of Song et al. (2021)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.smld(), presets.ddpm_smld())
