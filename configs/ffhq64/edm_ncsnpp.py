"""EDM with NCSN++ on FFHQ at 64 x 64: of the published code,
`--arch=ncsnpp --batch=256 --cres=1,2,2,2 --lr=2e-4 --dropout=0.05 --augment=0.15`.

The data are `ffhq-64x64.zip` under $SDELAB_DATA, as `dataset_tool.py` of https://github.com/NVlabs/edm makes it; all are
trained on.

Command:  sdelab train --config configs/ffhq64/edm_ncsnpp.py --workdir runs/ffhq64/edm_ncsnpp
Sampling: sdelab sample --workdir runs/ffhq64/edm_ncsnpp --solver heun --grid edm --steps 40
Hardware: published: eight V100, about four days; --config.run.placement=data for several devices
Time:     unmeasured
Expected: FID 2.53 with 79 evaluations a sample (table 2 of Karras et al., 2022, config F, VE)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import edm


def get_config() -> Any:
    return edm.ffhq64(edm.ncsnpp(multipliers=(1, 2, 2, 2), dropout=0.05))
