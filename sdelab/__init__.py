"""sdelab: score-based SDEs with every sampler a diffrax solver and every number checked against an exact answer.

The forward processes are imported eagerly, on `jax` and `equinox` alone; everything else on first use (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING, Any

from sdelab.sde import EDM as EDM
from sdelab.sde import VE as VE
from sdelab.sde import VP as VP
from sdelab.sde import AbstractAffineSDE as AbstractAffineSDE
from sdelab.sde import AbstractSDE as AbstractSDE
from sdelab.sde import FromSchedule as FromSchedule
from sdelab.sde import RectifiedFlow as RectifiedFlow
from sdelab.sde import SubVP as SubVP
from sdelab.sde import VEExact as VEExact
from sdelab.sde import VPCosine as VPCosine

if TYPE_CHECKING:
    from sdelab import bounds as bounds
    from sdelab import data as data
    from sdelab import evaluate as evaluate
    from sdelab import exact as exact
    from sdelab import geometry as geometry
    from sdelab import grids as grids
    from sdelab import interop as interop
    from sdelab import likelihood as likelihood
    from sdelab import losses as losses
    from sdelab import nn as nn
    from sdelab import optimised_grids as optimised_grids
    from sdelab import plot as plot
    from sdelab import reverse as reverse
    from sdelab import sampling as sampling
    from sdelab import score as score
    from sdelab import solvers as solvers
    from sdelab import testing as testing
    from sdelab import train as train
    from sdelab.bounds import variational_bound as variational_bound
    from sdelab.interpolation import interpolate as interpolate
    from sdelab.likelihood import bits_per_dim as bits_per_dim
    from sdelab.likelihood import log_prob as log_prob
    from sdelab.likelihood import log_prob_with_info as log_prob_with_info
    from sdelab.loading import load as load
    from sdelab.reverse import ProbabilityFlow as ProbabilityFlow
    from sdelab.reverse import ReverseSDE as ReverseSDE
    from sdelab.sampling import decode as decode
    from sdelab.sampling import encode as encode
    from sdelab.sampling import sample as sample
    from sdelab.sampling import sample_with_info as sample_with_info
    from sdelab.sampling import trajectory as trajectory

__version__ = "0.1.0"

_MODULES = frozenset(
    "bounds data evaluate exact geometry grids interop likelihood losses nn optimised_grids plot reverse sampling score sde "
    "solvers testing train".split()
)
_ATTRIBUTES = {
    "ReverseSDE": "sdelab.reverse",
    "ProbabilityFlow": "sdelab.reverse",
    "sample": "sdelab.sampling",
    "sample_with_info": "sdelab.sampling",
    "trajectory": "sdelab.sampling",
    "encode": "sdelab.sampling",
    "decode": "sdelab.sampling",
    "interpolate": "sdelab.interpolation",
    "variational_bound": "sdelab.bounds",
    "log_prob": "sdelab.likelihood",
    "log_prob_with_info": "sdelab.likelihood",
    "bits_per_dim": "sdelab.likelihood",
    "load": "sdelab.loading",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"sdelab.{name}")
    if name in _ATTRIBUTES:
        value = getattr(importlib.import_module(_ATTRIBUTES[name]), name)
        globals()[name] = value  # a function must win over a module of the same name
        return value
    raise AttributeError(f"module 'sdelab' has no attribute {name!r}; it has {', '.join(__dir__())}.")


def __dir__() -> list[str]:
    return sorted({name for name in globals() if not name.startswith("_")} | _MODULES | set(_ATTRIBUTES))
