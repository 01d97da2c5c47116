"""EDM with DDPM++ on FFHQ at 64 x 64: of the published code,
`--arch=ddpmpp --batch=256 --cres=1,2,2,2 --lr=2e-4 --dropout=0.05 --augment=0.15`.

The data are `ffhq-64x64.zip` under $SDELAB_DATA, as `dataset_tool.py` of https://github.com/NVlabs/edm makes it; all are
trained on.

Command:  sdelab train --config configs/ffhq64/edm_ddpmpp.py --workdir runs/ffhq64/edm_ddpmpp
Sampling: sdelab sample --workdir runs/ffhq64/edm_ddpmpp --solver heun --grid edm --steps 40
Hardware: published: eight V100, about four days; --config.run.placement=data for several devices
Time:     unmeasured
Expected: FID 2.39 with 79 evaluations a sample (table 2 of Karras et al., 2022, config F, VP)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import edm


def get_config() -> Any:
    return edm.ffhq64(edm.ddpmpp(multipliers=(1, 2, 2, 2), dropout=0.05))
