"""EDM2-S on ImageNet at 64 x 64, with labels: the published code's `--preset=edm2-img64-s`, in bfloat16.

The data are `img64.zip` under $SDELAB_DATA, as `dataset_tool.py` of https://github.com/NVlabs/edm2 makes it from the training images
(`convert --resolution=64x64 --transform=center-crop-dhariwal`).

Command:  sdelab train --config configs/imagenet64/edm2_s.py --workdir runs/imagenet64/edm2_s
Average:  sdelab ema --workdir runs/imagenet64/edm2_s --sigma-rel 0.075 --name fid
Sampling: sdelab sample --workdir runs/imagenet64/edm2_s --average fid --solver heun --grid edm --steps 32
Hardware: published: 32 A100; --config.run.placement=data for several devices, --config.run.pieces for less memory
Time:     unmeasured
Expected: FID 1.58 with 63 evaluations a sample (`generate_images.py` of the published code, `edm2-img64-s-fid`)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import edm2


def get_config() -> Any:
    return edm2.imagenet64("S")
