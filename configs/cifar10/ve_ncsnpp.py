"""VE with NCSN++, on CIFAR-10 without labels: score_sde's `ve/cifar10_ncsnpp_continuous`.

Command:  sdelab train --config configs/cifar10/ve_ncsnpp.py --workdir runs/cifar10/ve_ncsnpp
Sampling: sdelab sample --workdir runs/cifar10/ve_ncsnpp --solver predictor_corrector --snr 0.16 --steps 1000 --finish noiseless
Hardware: any; --config.run.placement=data for several devices
Time:     unmeasured; published: 0.30 s a step on four V100 (README of https://github.com/yang-song/score_sde_pytorch)
Expected: FID 2.38, IS 9.83 (table 3 of Song et al., 2021)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.cifar10(score_sde.ve(), presets.ncsnpp())
