"""VE with NCSN++ on CelebA-HQ at 256 x 256: score_sde's `ve/celebahq_256_ncsnpp_continuous`.

The data are PNG or JPEG files of that size in `celebahq-256.zip` under $SDELAB_DATA, or in a folder that
--config.data.path names; all are trained on.

Command:  sdelab train --config configs/celebahq256/ve_ncsnpp.py --workdir runs/celebahq256/ve_ncsnpp
Sampling: sdelab sample --workdir runs/celebahq256/ve_ncsnpp --solver predictor_corrector --snr 0.075 --steps 2000 --finish noiseless
Hardware: several accelerators, --config.run.placement=data; --config.model.rematerialise=True for less memory
Time:     unmeasured
Expected: samples as in the README of https://github.com/yang-song/score_sde_pytorch; no number is published
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import score_sde
from sdelab.nn import presets


def get_config() -> Any:
    return score_sde.images_256(score_sde.ve(sigma_max=348.0), presets.ncsnpp_256(), path="celebahq-256.zip")
