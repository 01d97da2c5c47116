"""Trainings on points in the plane, on two CPU cores."""

from typing import Any

from sdelab.cli.base_config import composed, toy_config


def vp(data: str) -> Any:
    """VP on one of the two-dimensional sets."""
    rates = {"sde": {"beta_min": 0.1, "beta_max": 20.0}}
    return composed(toy_config(data, "VP").to_dict(), rates, {"optim": {"batch_size": 512}})
