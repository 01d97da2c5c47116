"""Objectives: per-example losses `(batch,)`, whose mean is the caller's."""

from sdelab.losses.denoising import denoising_loss as denoising_loss
from sdelab.losses.denoising import denoising_score_matching as denoising_score_matching
from sdelab.losses.time_sampling import AbstractTimeSampler as AbstractTimeSampler
from sdelab.losses.time_sampling import UniformTime as UniformTime
from sdelab.losses.weighting import AbstractWeighting as AbstractWeighting
from sdelab.losses.weighting import DiffusionSquared as DiffusionSquared
from sdelab.losses.weighting import SigmaSquared as SigmaSquared
