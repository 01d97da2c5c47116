"""EDM's models in our words. The checkpoint holds the arguments of its network; what generates is the paper's process.

Karras et al. (2022), https://arxiv.org/abs/2206.00364, and its code, https://github.com/NVlabs/edm.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from sdelab._checks import unknown_name
from sdelab.interop.edm import ARGUMENTS, OF_THE_PRECONDITIONER, edm_arguments, edm_params
from sdelab.interop.translation import CENTRED, Config, Translation, check_known, checked
from sdelab.nn import ADM, SongUNet
from sdelab.score import IDDPMPreconditioner

NETWORKS = {"DhariwalUNet": "adm", "SongUNet": "song_unet"}
"""By EDM's names."""
KNOWN: dict[str, Any] = dict.fromkeys(
    sorted({key for names in ARGUMENTS.values() for key in names} | OF_THE_PRECONDITIONER)
)
"""The keys that a configuration may have."""

SUM = {"reduction": "sum"}
"""EDM's losses are sums over an image."""

LOWEST, HIGHEST = 0.002, 80.0
"""The noise levels between which EDM generates, where the network knows them."""


def translate(config: Config, decay: float | None) -> Translation:
    """The arguments of a preconditioner of EDM, with its class as `class_name`, in our words.

    The process is EDM's, whichever the network was trained under; its ends are 0.002 and 80, or the network's own where
    those lie inside. The objective is that of the preconditioner in EDM's training (EDM's own for iDDPM's, which EDM only
    sampled); optimiser and average are those of EDM on CIFAR-10, which the checkpoint does not hold: without the ramp-up of the
    average, which would soon forget the imported one, and without augmentation.

    Errors: an unknown class, network or argument, with the closest.
    """
    check_known("network", config, KNOWN)
    config = checked(config, KNOWN)
    kind = config.get("class_name")
    if kind not in PRECONDITIONERS:
        raise unknown_name("preconditioner of EDM", str(kind), PRECONDITIONERS)
    preconditioner, (low, high) = PRECONDITIONERS[kind](config)
    loss = LOSSES[kind](preconditioner)
    name, arguments = edm_arguments(config)
    name = NETWORKS[name]
    size, channels = arguments.pop("image_size"), arguments.pop("image_channels")
    return Translation(
        config={
            "sde": {"name": "EDM", "t_min": max(LOWEST, low), "t_max": min(HIGHEST, high)},
            "model": {"name": name, **arguments},
            "preconditioner": preconditioner,
            "loss": loss,
            "optim": {
                "batch_size": 512,
                "learning_rate": 1e-3,
                "warmup_steps": 19_531,  # of 10 million images
                "clip_norm": 0.0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
            },
            # A half-life of 500 000 images: 2 ** (-512 / 500000) a step.
            "ema": {"name": "constant", "decay": 0.5 ** (512 / 500_000) if decay is None else decay},
        },
        event_shape=(size, size, channels),
        scaling=CENTRED,
        steps=390_625,  # 200 million images
    )


def place(arrays: Mapping[str, np.ndarray], network: nnx.Module) -> Any:
    """As `edm_params`, of a network that returns as many channels as the image has.

    iDDPM's networks return twice as many: the noise, and an interpolation of variances that a score has no use for. The half
    of the last convolution that makes it is cut off. Nichol and Dhariwal (2021), section 3.1, https://arxiv.org/abs/2102.09672.
    """
    if not isinstance(network, (ADM, SongUNet)):
        raise TypeError(f"network = {type(network).__name__} is not accepted; accepted: ADM, SongUNet.")
    kept = dict(arrays)
    for name, array in arrays.items():
        if name.endswith(LAST) and array.shape[0] == 2 * network.plan.image_channels:
            kept[name] = array[: network.plan.image_channels]
    return edm_params(kept, network)


LAST = ("out_conv.weight", "out_conv.bias", "aux_conv.weight", "aux_conv.bias")
"""The layers that make an image."""


def _edm(config: Config) -> tuple[dict[str, Any], tuple[float, float]]:
    ends = (config.get("sigma_min", 0.0), config.get("sigma_max", math.inf))
    return {"name": "edm", "data_std": config.get("sigma_data", 0.5)}, ends


def _vp(config: Config) -> tuple[dict[str, Any], tuple[float, float]]:
    rise, start, first = config.get("beta_d", 19.9), config.get("beta_min", 0.1), config.get("epsilon_t", 1e-5)
    low, high = (math.sqrt(math.expm1(0.5 * rise * t**2 + start * t)) for t in (first, 1.0))
    return {"name": "edm_vp", "beta_min": start, "beta_max": start + rise, "n": config.get("M", 1000)}, (low, high)


def _ve(config: Config) -> tuple[dict[str, Any], tuple[float, float]]:
    return {"name": "edm_ve"}, (config.get("sigma_min", 0.02), config.get("sigma_max", 100.0))


def _iddpm(config: Config) -> tuple[dict[str, Any], tuple[float, float]]:
    settings = {"n": config.get("M", 1000), "c_1": config.get("C_1", 0.001), "c_2": config.get("C_2", 0.008)}
    levels = IDDPMPreconditioner(**settings).levels()
    return {"name": "iddpm", **settings}, (float(levels[-2]), float(levels[0]))


PRECONDITIONERS: dict[str, Callable[[Config], tuple[dict[str, Any], tuple[float, float]]]] = {
    "EDMPrecond": _edm,
    "VEPrecond": _ve,
    "VPPrecond": _vp,
    "iDDPMPrecond": _iddpm,
}
"""By EDM's names: the section `preconditioner`, and the lowest and highest noise level that the network knows."""


def _edm_loss(preconditioner: Config) -> dict[str, Any]:
    level = preconditioner.get("data_std", 0.5)
    return {"weighting": "edm", "data_std": level, "error": "data", "times": "log_normal", **SUM}


def _vp_loss(preconditioner: Config) -> dict[str, Any]:
    return {"times": "vp_noise", "beta_min": preconditioner["beta_min"], "beta_max": preconditioner["beta_max"], **SUM}


def _ve_loss(preconditioner: Config) -> dict[str, Any]:
    return {"times": "ve_noise", **SUM}


LOSSES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "EDMPrecond": _edm_loss,
    "VEPrecond": _ve_loss,
    "VPPrecond": _vp_loss,
    "iDDPMPrecond": _edm_loss,
}
