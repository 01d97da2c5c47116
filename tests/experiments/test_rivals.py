"""At equal numbers of evaluations sdelab is at least as accurate as the recorded runs of other libraries."""

import pathlib

import jax
import numpy as np
import pytest

from experiments.work_precision.cases import CONTENDERS
from experiments.work_precision.recorded import recorded_runs
from experiments.work_precision.rivals import duels

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "D_samplers"
LIBRARIES = {"kdiffusion", "dpm_solver", "diffusers", "azula", "unipc", "edm", "ablation"}
FEW = (  # of our solvers: enough to win everywhere
    "UniPC(3, prediction=NoisePrediction(), start=LowOrderStart())",
    "DPMSolver3M(start=LowOrderStart())",
    "DPMSolver2M()",
)


@pytest.mark.parametrize("data", ["gmm2", "gmm8"])
def test_recorded_runs_are_in_one_set_of_coordinates(data):
    """What starts at sigma/alpha = h is about N(0, h^2) there."""
    _, runs = recorded_runs(FOLDER, data)
    assert {run.library for run in runs} == LIBRARIES
    for run in runs:
        assert 0.6 < np.sqrt(np.mean(run.start**2)) / run.high < 1.4, run.name
        assert run.low < 0.02 < run.high


@pytest.mark.slow
@pytest.mark.parametrize("data", ["gmm2", "gmm8"])
def test_ours_are_at_least_as_accurate(data):
    with jax.enable_x64(True):
        found = duels(FOLDER, data, {name: CONTENDERS[name] for name in FEW})
    judged = [duel for duel in found if duel.their_run]
    assert len(judged) > 60
    assert min(duel.theirs for duel in judged if "adaptive" in duel.their_run) < 5e-4  # its tolerance: the truth is one
    assert not [duel for duel in judged if not duel.holds]
