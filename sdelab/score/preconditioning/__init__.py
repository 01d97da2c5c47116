"""Preconditioners: what a raw network predicts, and at which scale it sees its input. See `preconditioning.base`."""

from sdelab.score.preconditioning.base import AbstractPreconditioner as AbstractPreconditioner
from sdelab.score.preconditioning.base import Coefficient as Coefficient
from sdelab.score.preconditioning.data import DataPrediction as DataPrediction
from sdelab.score.preconditioning.edm import EDMPreconditioner as EDMPreconditioner
from sdelab.score.preconditioning.iddpm import IDDPMPreconditioner as IDDPMPreconditioner
from sdelab.score.preconditioning.noise import NoisePrediction as NoisePrediction
from sdelab.score.preconditioning.scaled_noise import AbstractScaledNoise as AbstractScaledNoise
from sdelab.score.preconditioning.score import ScorePrediction as ScorePrediction
from sdelab.score.preconditioning.score_sde_discrete_ve import ScoreSDEDiscreteVE as ScoreSDEDiscreteVE
from sdelab.score.preconditioning.score_sde_discrete_vp import ScoreSDEDiscreteVP as ScoreSDEDiscreteVP
from sdelab.score.preconditioning.score_sde_ve import ScoreSDEVE as ScoreSDEVE
from sdelab.score.preconditioning.score_sde_vp import ScoreSDEVP as ScoreSDEVP
from sdelab.score.preconditioning.unit_input import AbstractUnitInput as AbstractUnitInput
from sdelab.score.preconditioning.ve import VEPreconditioner as VEPreconditioner
from sdelab.score.preconditioning.velocity import VelocityPrediction as VelocityPrediction
from sdelab.score.preconditioning.vp import VPPreconditioner as VPPreconditioner
