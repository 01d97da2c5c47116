"""Forward processes: the mathematics of score-based models, on `jax` and `equinox` alone."""

from sdelab.sde.base import AbstractAffineSDE as AbstractAffineSDE
from sdelab.sde.base import AbstractSDE as AbstractSDE
from sdelab.sde.edm import EDM as EDM
from sdelab.sde.from_schedule import FromSchedule as FromSchedule
from sdelab.sde.rectified_flow import RectifiedFlow as RectifiedFlow
from sdelab.sde.subvp import SubVP as SubVP
from sdelab.sde.ve import VE as VE
from sdelab.sde.ve_exact import VEExact as VEExact
from sdelab.sde.vp import VP as VP
from sdelab.sde.vp_cosine import VPCosine as VPCosine
