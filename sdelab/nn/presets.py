"""Arguments of the published networks: `NCSNpp(3, image_size=32, **presets.ddpmpp(), rngs=rngs)`.

They are the `model` sections of the published configurations, with the labels and scalings that belong to them.
Song et al. (2021), https://github.com/yang-song/score_sde, folder `configs`; those named `adm` are of `ADM`: Dhariwal and Nichol
(2021), https://arxiv.org/abs/2105.05233, flags of https://github.com/openai/guided-diffusion.
"""

from typing import Any

FIR = (1, 3, 3, 1)


def ddpm() -> dict[str, Any]:
    """`vp/ddpm/cifar10_continuous`: the network of Ho et al. (2020) for 32 x 32 images, with one attention a level on the way up."""
    return {
        "channels": 128,
        "multipliers": (1, 2, 2, 2),
        "blocks": 2,
        "attention_resolutions": (16,),
        "block": "ddpm",
        "skip_rescale": False,
        "groups": 32,
        "dropout": 0.1,
    }


def ddpm_smld() -> dict[str, Any]:
    """`ve/cifar10_ddpm`, for images in [0, 1]: labelled as `ncsnpp_discrete`."""
    table = {"sigma_min": 0.01, "sigma_max": 50.0, "num_scales": 1000}
    return {**ddpm(), "scale_by_sigma": True, "centered": False, **table}


def ddpmpp() -> dict[str, Any]:
    """`vp/cifar10_ddpmpp_continuous`."""
    return {
        "channels": 128,
        "multipliers": (1, 2, 2, 2),
        "blocks": 4,
        "attention_resolutions": (16,),
        "dropout": 0.1,
    }


def ddpmpp_deep() -> dict[str, Any]:
    """`vp/cifar10_ddpmpp_deep_continuous`."""
    return {**ddpmpp(), "blocks": 8}


def ncsnpp_vp() -> dict[str, Any]:
    """`vp/cifar10_ncsnpp_continuous`: NCSN++ for VP and sub-VP."""
    return {**ddpmpp(), "fir": FIR, "progressive_input": "residual"}


def ncsnpp() -> dict[str, Any]:
    """`ve/cifar10_ncsnpp_continuous`, for images in [0, 1]."""
    return {**ncsnpp_vp(), "embedding": "fourier", "scale_by_sigma": True, "centered": False}


def ncsnpp_deep() -> dict[str, Any]:
    """`ve/cifar10_ncsnpp_deep_continuous`."""
    return {**ncsnpp(), "blocks": 8}


def ncsnpp_discrete() -> dict[str, Any]:
    """`ve/cifar10_ncsnpp`: labelled by the index among 1000 sigmas from 50 to 0.01."""
    return {**ncsnpp(), "embedding": "positional", "sigma_min": 0.01, "sigma_max": 50.0, "num_scales": 1000}


def ncsnpp_256() -> dict[str, Any]:
    """`ve/ffhq_256_ncsnpp_continuous`, and those of the other sets of 256 x 256 images."""
    return {
        **ncsnpp(),
        "multipliers": (1, 1, 2, 2, 2, 2, 2),
        "blocks": 2,
        "progressive_input": "input_skip",
        "progressive": "output_skip",
        "dropout": 0.0,
    }


def ncsnpp_1024() -> dict[str, Any]:
    """`ve/ffhq_ncsnpp_continuous`, for 1024 x 1024 images."""
    return {**ncsnpp_256(), "channels": 16, "multipliers": (1, 2, 4, 8, 16, 32, 32, 32), "blocks": 1}


def adm_64() -> dict[str, Any]:
    """ImageNet at 64 x 64, with labels; the second half of the channels is for the variance, as in all four."""
    sizes = {"channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention_resolutions": (32, 16, 8)}
    return {**sizes, "head_size": 64, "classes": 1000, "out_channels": 6, "dropout": 0.1}


def adm_128() -> dict[str, Any]:
    """ImageNet at 128 x 128."""
    sizes = {"channels": 256, "multipliers": (1, 1, 2, 3, 4), "blocks": 2, "heads": 4, "dropout": 0.0}
    return {**adm_64(), **sizes}


def adm_256() -> dict[str, Any]:
    """ImageNet at 256 x 256."""
    return {**adm_128(), "multipliers": (1, 1, 2, 2, 4, 4), "heads": None}


def adm_512() -> dict[str, Any]:
    """ImageNet at 512 x 512."""
    return {**adm_256(), "multipliers": (0.5, 1, 1, 2, 2, 4, 4)}
