"""The experiment's table says what its runs say, and the mixture shows the saving that the Gaussian theory promises."""

import json
import math

import numpy as np
import pytest

from experiments.geometry import __main__ as experiment
from experiments.geometry import problems
from experiments.geometry.measure import Run, rows_of
from sdelab.geometry import ErrorCurve, Saving
from sdelab.train import fit

CONFIG = {
    "seed": 1,
    "sde": {"name": "VP"},
    "data": {"name": "two_moons"},
    "model": {"name": "mlp", "width": 8, "depth": 1, "classes": 2},
    "preconditioner": {"name": "edm", "data_std": 0.9},
    "loss": {},
    "optim": {"batch_size": 16, "learning_rate": 1e-2, "warmup_steps": 0},
    "ema": {"name": "constant", "decay": 0.5},
    "run": {"steps": 4, "checkpoint_every": 4},
}


def test_a_row_has_the_best_of_the_warm_starts():
    evaluations = (10.0, 20.0, 40.0)

    def run(t, *errors):
        cold = ErrorCurve(evaluations, (0.1, 0.025, 1e-4))
        return Run("problem", "solver", 1.0, t, Saving(cold, ErrorCurve(evaluations, errors)))

    first, second, third = rows_of([run(0.7, 0.05, 0.0125, 0.003), run(0.3, 0.03, 0.03, 0.03)])
    assert (first.warm_evaluations, first.saved) == (10.0, 0.0)
    assert second.t == 0.7
    assert second.warm_evaluations == pytest.approx(10 * math.sqrt(2))  # halfway in the logarithms
    assert second.saved == pytest.approx(1 - 1 / math.sqrt(2))
    assert math.isnan(third.saved)


@pytest.mark.slow
def test_it_leaves_the_numbers_and_a_picture_of_a_mixture_and_of_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(problems, "REFERENCE_STEPS", 40)
    fit(CONFIG, tmp_path / "run")
    settings = ["--solvers", "Heun()", "--evaluations", "10", "24", "--levels", "8", "--samples", "64"]
    where = ["--dimensions", "2", "--workdir", str(tmp_path / "run"), "--label", "1", "--rank", "1"]
    assert experiment.main([*settings, *where, "--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "geometry.json").read_text())
    rows = results["equal_error"]
    assert [row["problem"] for row in rows] == ["mixture, 2-D"] * 2 + ["network of run"] * 2
    assert [row["evaluations"] for row in rows] == [10.0, 24.0] * 2
    assert rows[1]["saved"] > 0.1
    assert rows[1]["warm_evaluations"] == pytest.approx(24 * (1 - rows[1]["saved"]))
    table = capsys.readouterr().out
    for curve in results["curves"]:
        assert np.all(np.isfinite(curve["cold"]["errors"]))
        assert f"{curve['cold']['errors'][1]:.2e}" in table
    assert (tmp_path / "out" / "geometry.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="label = 7"):
        problems.trained_problem(tmp_path / "run", 4, 1, 7)
