r"""EDM with the network of Dhariwal and Nichol on ImageNet at 64 x 64: of the published code,
`--cond=1 --arch=adm --duration=2500 --batch=4096 --lr=1e-4 --ema=50 --dropout=0.10 --augment=0 --fp16=1 --ls=100`, in bfloat16,
which needs no scaling of the loss.

The data are `imagenet-64x64.zip` under $SDELAB_DATA, as `dataset_tool.py` of https://github.com/NVlabs/edm makes it from the training
images (`--resolution=64x64 --transform=center-crop`).

Command:  sdelab train --config configs/imagenet64/edm_adm.py --workdir runs/imagenet64/edm_adm
Sampling: sdelab sample --workdir runs/imagenet64/edm_adm --solver churn --s_churn 40 --s_min 0.05 --s_max 50 --s_noise 1.003 \
          --grid edm --steps 256
Hardware: published: 32 A100, about 13 days; --config.run.placement=data for several devices, --config.run.pieces for less memory
Time:     unmeasured
Expected: FID 1.36 with 511 evaluations a sample (abstract of Karras et al., 2022)
Measured: unmeasured
"""

from typing import Any

from sdelab.cli.parts import edm


def get_config() -> Any:
    return edm.imagenet64()
