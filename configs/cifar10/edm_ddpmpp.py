"""EDM with DDPM++ on CIFAR-10 without labels: `--cond=0 --arch=ddpmpp` of the published code.

Command:  sdelab train --config configs/cifar10/edm_ddpmpp.py --workdir runs/cifar10/edm_ddpmpp
Sampling: sdelab sample --workdir runs/cifar10/edm_ddpmpp --solver heun --grid edm --steps 18
Hardware: published: eight V100, about two days; --config.run.placement=data for several devices
Time:     unmeasured
Expected: FID 1.97 with 35 evaluations a sample (table 2 of Karras et al., 2022, config F, VP)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import edm


def get_config() -> Any:
    return edm.cifar10(edm.ddpmpp())
