"""Scores: callables `(x, t) -> score`, and networks that become one."""

from sdelab.score.base import AbstractScore as AbstractScore
from sdelab.score.base import Score as Score
from sdelab.score.conversion import conversion as conversion
from sdelab.score.conversion import convert as convert
from sdelab.score.network import NetworkScore as NetworkScore
from sdelab.score.preconditioning import AbstractPreconditioner as AbstractPreconditioner
from sdelab.score.preconditioning import AbstractScaledNoise as AbstractScaledNoise
from sdelab.score.preconditioning import AbstractUnitInput as AbstractUnitInput
from sdelab.score.preconditioning import DataPrediction as DataPrediction
from sdelab.score.preconditioning import EDMPreconditioner as EDMPreconditioner
from sdelab.score.preconditioning import IDDPMPreconditioner as IDDPMPreconditioner
from sdelab.score.preconditioning import NoisePrediction as NoisePrediction
from sdelab.score.preconditioning import ScorePrediction as ScorePrediction
from sdelab.score.preconditioning import ScoreSDEDiscreteVE as ScoreSDEDiscreteVE
from sdelab.score.preconditioning import ScoreSDEDiscreteVP as ScoreSDEDiscreteVP
from sdelab.score.preconditioning import ScoreSDEVE as ScoreSDEVE
from sdelab.score.preconditioning import ScoreSDEVP as ScoreSDEVP
from sdelab.score.preconditioning import VelocityPrediction as VelocityPrediction
from sdelab.score.preconditioning import VEPreconditioner as VEPreconditioner
from sdelab.score.preconditioning import VPPreconditioner as VPPreconditioner
