"""EDM with NCSN++ on CIFAR-10 with labels: `--cond=1 --arch=ncsnpp` of the published code.

Command:  sdelab train --config configs/cifar10/edm_ncsnpp_conditional.py --workdir runs/cifar10/edm_ncsnpp_conditional
Sampling: sdelab sample --workdir runs/cifar10/edm_ncsnpp_conditional --solver heun --grid edm --steps 18
Hardware: published: eight V100, about two days; --config.run.placement=data for several devices
Time:     unmeasured
Expected: FID 1.79 with 35 evaluations a sample (table 2 of Karras et al., 2022, config F, VE)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import edm


def get_config() -> Any:
    return edm.cifar10(edm.ncsnpp(classes=10))
