"""Published configurations of score_sde, by the names of their files, and in our words.

The two codes share them: Song et al. (2021), https://github.com/yang-song/score_sde and
https://github.com/yang-song/score_sde_pytorch, folder `configs`. A checkpoint does not hold its configuration.
"""

from collections.abc import Mapping
from typing import Any

from sdelab._checks import unknown_name
from sdelab.interop.score_sde import score_sde_arguments
from sdelab.interop.translation import CENTRED, NOT_CENTRED, Config, Translation, checked, merged

COMMON: dict[str, Any] = {
    "data": {"centered": False, "image_size": 32, "num_channels": 3},
    "model": {
        "attention_type": "ddpm",
        "attn_resolutions": (16,),
        "beta_max": 20.0,
        "beta_min": 0.1,
        "ch_mult": (1, 2, 2, 2),
        "conditional": True,
        "conv_size": 3,
        "dropout": 0.1,
        "ema_rate": 0.9999,
        "embedding_type": "fourier",
        "fir": False,
        "fir_kernel": (1, 3, 3, 1),
        "fourier_scale": 16,
        "init_scale": 0.0,
        "name": "ncsnpp",
        "nf": 128,
        "nonlinearity": "swish",
        "normalization": "GroupNorm",
        "num_res_blocks": 4,
        "num_scales": 1000,
        "progressive": "none",
        "progressive_combine": "sum",
        "progressive_input": "none",
        "resamp_with_conv": True,
        "resblock_type": "biggan",
        "scale_by_sigma": False,
        "sigma_max": 50.0,
        "sigma_min": 0.01,
        "skip_rescale": True,
    },
    "optim": {"beta1": 0.9, "eps": 1e-8, "grad_clip": 1.0, "lr": 2e-4, "optimizer": "Adam", "warmup": 5000, "weight_decay": 0},
    "training": {
        "batch_size": 128,
        "continuous": True,
        "likelihood_weighting": False,
        "n_iters": 1_300_001,
        "reduce_mean": False,
        "sde": None,
    },
}  # fmt: skip
"""What the published files say unless they say otherwise; also the keys that a configuration may have."""

_VP = {
    "data": {"centered": True},
    "model": {"embedding_type": "positional"},
    "training": {"sde": "vpsde", "reduce_mean": True},
}
_VE = {"model": {"ema_rate": 0.999, "scale_by_sigma": True}, "training": {"sde": "vesde"}}
_DDPM = merged(_VP, {"model": {"name": "ddpm", "num_res_blocks": 2}})
_FIR = {"model": {"fir": True, "progressive_input": "residual"}}
_DEEP = {"model": {"num_res_blocks": 8}, "training": {"n_iters": 950_001}}
_DISCRETE = {"training": {"continuous": False}}
_LARGE = merged(
    _VE,
    {
        "data": {"image_size": 256},
        "model": {
            "ch_mult": (1, 1, 2, 2, 2, 2, 2),
            "dropout": 0.0,
            "fir": True,
            "num_res_blocks": 2,
            "num_scales": 2000,
            "progressive": "output_skip",
            "progressive_input": "input_skip",
        },
        "training": {"batch_size": 64, "n_iters": 2_400_001},
    },
)
_LARGEST = merged(
    _LARGE,
    {
        "data": {"image_size": 1024},
        "model": {
            "ch_mult": (1, 2, 4, 8, 16, 32, 32, 32),
            "ema_rate": 0.9999,
            "nf": 16,
            "num_res_blocks": 1,
            "sigma_max": 1348.0,
        },
        "training": {"batch_size": 8},
    },
)


_DDPM_LARGE = {
    "data": {"image_size": 256},
    "model": {"ch_mult": (1, 1, 2, 2, 4, 4), "dropout": 0.0},
    "optim": {"lr": 2e-5},
    "training": {"batch_size": 64, "n_iters": 2_400_001},
}


def _preset(*changes: Config) -> dict[str, Any]:
    config = COMMON
    for change in changes:
        config = merged(config, change)
    return config


def _sub(config: Config) -> dict[str, Any]:
    return merged(config, {"training": {"sde": "subvpsde"}})


PRESETS: dict[str, dict[str, Any]] = {
    "subvp/cifar10_ddpm_continuous": _preset(_sub(_DDPM)),
    "subvp/cifar10_ddpmpp_continuous": _preset(_sub(_VP)),
    "subvp/cifar10_ddpmpp_deep_continuous": _preset(_sub(_VP), _DEEP),
    "subvp/cifar10_ncsnpp_continuous": _preset(_sub(_VP), _FIR),
    "subvp/cifar10_ncsnpp_deep_continuous": _preset(_sub(_VP), _FIR, _DEEP),
    "ve/bedroom_ncsnpp_continuous": _preset(_LARGE, {"model": {"sigma_max": 378.0}}),
    "ve/celebahq_256_ncsnpp_continuous": _preset(_LARGE, {"model": {"sigma_max": 348.0}}),
    "ve/celebahq_ncsnpp_continuous": _preset(_LARGEST),
    "ve/church_ncsnpp_continuous": _preset(_LARGE, {"model": {"sigma_max": 380.0}}),
    "ve/cifar10_ddpm": _preset(_VE, _DISCRETE, {"model": {"name": "ddpm", "num_res_blocks": 2}}),
    "ve/cifar10_ncsnpp": _preset(_VE, _FIR, _DISCRETE, {"model": {"embedding_type": "positional"}}),
    "ve/cifar10_ncsnpp_continuous": _preset(_VE, _FIR),
    "ve/cifar10_ncsnpp_deep_continuous": _preset(_VE, _FIR, _DEEP),
    "ve/ffhq_256_ncsnpp_continuous": _preset(_LARGE, {"model": {"sigma_max": 348.0}}),
    "ve/ffhq_ncsnpp_continuous": _preset(_LARGEST, {"training": {"reduce_mean": True}}),
    "vp/cifar10_ddpmpp": _preset(_VP, _DISCRETE),
    "vp/cifar10_ddpmpp_continuous": _preset(_VP),
    "vp/cifar10_ddpmpp_deep_continuous": _preset(_VP, _DEEP),
    "vp/cifar10_ncsnpp": _preset(_VP, _FIR, _DISCRETE),
    "vp/cifar10_ncsnpp_continuous": _preset(_VP, _FIR),
    "vp/cifar10_ncsnpp_deep_continuous": _preset(_VP, _FIR, _DEEP),
    "vp/ddpm/celebahq": _preset(_DDPM, _DISCRETE, _DDPM_LARGE),
    "vp/ddpm/church": _preset(_DDPM, _DISCRETE, _DDPM_LARGE),
    "vp/ddpm/cifar10": _preset(_DDPM, _DISCRETE),
    "vp/ddpm/cifar10_continuous": _preset(_DDPM),
}
"""By the names of their files."""


def translate(config: Config, decay: float | None, *, average: str) -> Translation:
    """A complete published configuration in our words; `average` is the rule of its moving average, of `DECAYS`.

    Errors: an unknown key, process or network, with the closest.
    """
    config = checked(config, COMMON, strict=("model",))
    data, model, training, optim = (
        merged(COMMON[name], config.get(name, {})) for name in ("data", "model", "training", "optim")
    )
    kind = training["sde"]
    if kind not in PROCESSES:
        raise unknown_name("training.sde of the published configuration", str(kind), PROCESSES)
    sections = PROCESSES[kind](model, "continuous" if training["continuous"] else "discrete")
    arguments = score_sde_arguments({"data": data, "model": model})
    size, channels = arguments.pop("image_size"), arguments.pop("image_channels")
    return Translation(
        config={
            **sections,
            "model": {"name": "ncsnpp", **arguments},
            "loss": _loss(training),
            "optim": {
                "batch_size": training["batch_size"],
                "learning_rate": optim["lr"],
                "warmup_steps": optim["warmup"],
                "clip_norm": max(float(optim["grad_clip"]), 0.0),  # the published -1 is no bound, as our 0
                "b1": optim["beta1"],
                "b2": 0.999,
                "eps": optim["eps"],
            },
            "ema": {"name": average, "decay": model["ema_rate"] if decay is None else decay},
        },
        event_shape=(size, size, channels),
        scaling=CENTRED if data["centered"] else NOT_CENTRED,
        steps=training["n_iters"],
    )


def _loss(training: Mapping[str, Any]) -> dict[str, Any]:
    reduction = "mean" if training["reduce_mean"] else "half_sum"
    if not training["continuous"]:
        return {"name": "discrete", "reduction": reduction}
    weighting = "diffusion_squared" if training["likelihood_weighting"] else "sigma_squared"
    return {"weighting": weighting, "t_min": 1e-5, "reduction": reduction}


def _vp(name: str, model: Mapping[str, Any], labels: str) -> dict[str, Any]:
    rates = {"beta_min": model["beta_min"], "beta_max": model["beta_max"]}
    discrete = {"name": "score_sde_discrete_vp", "n": model["num_scales"], **rates}
    return {
        "sde": {"name": name, **rates},
        "preconditioner": {"continuous": {"name": "score_sde_vp"}, "discrete": discrete}[labels],
    }


def _ve(model: Mapping[str, Any], labels: str) -> dict[str, Any]:
    levels = {"sigma_min": model["sigma_min"], "sigma_max": model["sigma_max"]}
    discrete = {"name": "score_sde_discrete_ve", "n": model["num_scales"], **levels}
    return {
        "sde": {"name": "VE", **levels},
        "preconditioner": {"continuous": {"name": "score_sde_ve"}, "discrete": discrete}[labels],
    }


PROCESSES = {
    "subvpsde": lambda model, labels: _vp("SubVP", model, labels),
    "vesde": _ve,
    "vpsde": lambda model, labels: _vp("VP", model, labels),
}
"""By the published names."""
