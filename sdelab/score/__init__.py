"""Scores: callables `(x, t) -> score`, and networks that become one."""

from sdelab.score.base import AbstractScore as AbstractScore
from sdelab.score.base import Score as Score
from sdelab.score.network import NetworkScore as NetworkScore
from sdelab.score.preconditioning import AbstractPreconditioner as AbstractPreconditioner
from sdelab.score.preconditioning import AbstractUnitInput as AbstractUnitInput
from sdelab.score.preconditioning import DataPrediction as DataPrediction
from sdelab.score.preconditioning import EDMPreconditioner as EDMPreconditioner
from sdelab.score.preconditioning import NoisePrediction as NoisePrediction
from sdelab.score.preconditioning import ScorePrediction as ScorePrediction
from sdelab.score.preconditioning import VelocityPrediction as VelocityPrediction
