"""The published trainings of Song et al. (2021), https://arxiv.org/abs/2011.13456, by their code.

https://github.com/yang-song/score_sde, folder `configs`. Networks are those of `sdelab.nn.presets`. The published samplers are
commands, in the docstrings of the config files.
"""

from collections.abc import Mapping
from typing import Any

from sdelab.cli.base_config import Sections, composed
from sdelab.interop import translation

STEPS, STEPS_DEEP = 1_300_000, 950_000
"""Of the published CIFAR-10 trainings, and of those of the deep networks."""

CENTRED = {"low": translation.CENTRED.low, "high": translation.CENTRED.high}
"""Black at -1 and white at 1."""
NOT_CENTRED = {"low": translation.NOT_CENTRED.low, "high": translation.NOT_CENTRED.high}
"""Black at 0 and white at 1; networks with `centered=False` map it to [-1, 1] themselves."""

FROM_1E_5 = {"weighting": "sigma_squared", "times": "uniform", "t_min": 1e-5}
"""Times of training; sampling ends at the process's `t_min`."""


def vp() -> Sections:
    """VP in continuous time."""
    return _linear_rate("VP", {"name": "score_sde_vp"}, FROM_1E_5)


def sub_vp() -> Sections:
    """Sub-VP in continuous time."""
    return _linear_rate("SubVP", {"name": "score_sde_vp"}, FROM_1E_5)


def ddpm() -> Sections:
    """VP on DDPM's table of 1 000 noise levels."""
    table = {"name": "score_sde_discrete_vp", "n": 1000, "beta_min": 0.1, "beta_max": 20.0}
    return _linear_rate("VP", table, {"name": "discrete"})


def ve(sigma_max: float = 50.0) -> Sections:
    """VE in continuous time; `sigma_max` is about the largest distance between two images of the data."""
    return _exploding(sigma_max, {"name": "score_sde_ve"}, FROM_1E_5)


def smld() -> Sections:
    """VE on SMLD's table of 1 000 noise levels."""
    table = {"name": "score_sde_discrete_ve", "n": 1000, "sigma_min": 0.01, "sigma_max": 50.0}
    return _exploding(50.0, table, {"name": "discrete"})


def cifar10(process: Sections, network: Mapping[str, Any], *, steps: int = STEPS) -> Any:
    """A training on CIFAR-10 with flips, without labels."""
    return composed(process, training(batch_size=128, steps=steps), {"data": {"name": "cifar10"}}, _model(network))


def images_256(process: Sections, network: Mapping[str, Any], *, path: str) -> Any:
    """A training on 256 x 256 images with flips, all of those in `path`."""
    data = {"name": "images", "path": path, "size": 256, "held_out": 0}
    return composed(process, training(batch_size=64, steps=2_400_000), {"data": data}, _model(network))


def training(*, batch_size: int, steps: int) -> Sections:
    """Optimiser, augmentation and length: the same for all, but for batch and length."""
    return {
        "augment": {"name": "flip"},
        "optim": {
            "batch_size": batch_size,
            "learning_rate": 2e-4,
            "warmup_steps": 5000,
            "clip_norm": 1.0,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
        },
        "run": {"steps": steps, "log_every": 50, "checkpoint_every": 10_000, "keep": 3, "placement": "jit"},
    }


def _linear_rate(sde: str, preconditioner: Mapping[str, Any], loss: Mapping[str, Any]) -> Sections:
    return {
        "sde": {"name": sde, "beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-3},
        "preconditioner": preconditioner,
        "loss": {**loss, "reduction": "mean"},
        "data": CENTRED,
        "ema": {"name": "constant", "decay": 0.9999},
    }


def _exploding(sigma_max: float, preconditioner: Mapping[str, Any], loss: Mapping[str, Any]) -> Sections:
    return {
        "sde": {"name": "VE", "sigma_min": 0.01, "sigma_max": sigma_max, "t_min": 1e-5},
        "preconditioner": preconditioner,
        "loss": {**loss, "reduction": "half_sum"},
        "data": NOT_CENTRED,
        "ema": {"name": "constant", "decay": 0.999},
    }


def _model(network: Mapping[str, Any]) -> Sections:
    return {"model": {"name": "ncsnpp", **network}}
