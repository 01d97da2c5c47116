"""The experiment's table says what its records say, and its errors fall as the methods' orders have it."""

import argparse
import json

import numpy as np
import pytest

import sdelab
from experiments.work_precision import __main__ as experiment
from experiments.work_precision.cases import CONTENDERS, RULES, evaluations_of, steps_within
from experiments.work_precision.rivals import best_within, rules


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("to_data", [False, True])
def test_the_longest_run_within_a_budget(name, to_data):
    solver = CONTENDERS[name]
    for budget in (5, 12, 50):
        steps = steps_within(solver, budget, to_data)
        assert evaluations_of(solver, steps, to_data) <= budget < evaluations_of(solver, steps + 1, to_data)


def test_rules_end_where_the_exact_samples_are():
    sde = sdelab.VP()
    for rule in RULES.values():
        grid = rule(sde, 6)
        assert len(grid) == 7
        assert (grid[0], grid[-1]) == (sde.t_max, sde.t_min)
        assert np.all(np.diff(grid) < 0)


@pytest.mark.parametrize("low", [0.0, 0.01])
def test_noise_levels_between_the_ends_of_a_recorded_run(low):
    for rule in rules(low == 0.0):
        grid = rule.grid(40.0, low, 8)
        np.testing.assert_allclose(grid[[0, -1]], [40.0, low], rtol=1e-12)
        assert len(grid) == 9
        assert np.all(np.diff(grid) < 0)


def test_the_best_of_the_affordable():
    results = [(10, 0.3, "a"), (12, 0.1, "b"), (8, float("nan"), "c"), (9, 0.4, "d"), (7, float("inf"), "e")]
    assert best_within(results, 11) == (0.3, "a")
    assert best_within(results, 12) == (0.1, "b")
    error, name = best_within(results, 8)
    assert np.isnan(error)
    assert not name


def test_parts():
    assert experiment.part("3/12") == (3, 12)
    for wrong in ("0/3", "4/3", "3", "a/b", "-1/3"):
        with pytest.raises(argparse.ArgumentTypeError, match="K/N"):
            experiment.part(wrong)


@pytest.mark.slow
def test_the_table_is_that_of_the_records(tmp_path, capsys):
    settings = (
        "--sdes VP --problems 2 --solvers Heun Ancestral() --evaluations 16 64 --rules log_snr uniform --rounds 1"
    )
    assert experiment.main([*settings.split(), "--samples", "200", "--points", "16", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "records.json").read_text())
    assert (tmp_path / "mixture_2-D.png").stat().st_size > 10_000
    table = (tmp_path / "best.md").read_text()
    assert table.strip() in capsys.readouterr().out
    for kind, metric in (("deterministic", "rmse"), ("stochastic", "sliced_wasserstein")):
        records = [record for record in results["records"] if record["kind"] == kind]
        for budget in (16, 64):
            row = next(row for row in results["best"] if (row["kind"], row["budget"]) == (kind, budget))
            assert row["error"] == min(r["errors"][metric] for r in records if r["evaluations"] <= budget)
            assert f"{row['solver']} on {row['rule']}: {row['error']:.1e}" in table
    errors = {
        r["evaluations"]: r["errors"]["rmse"]
        for r in results["records"]
        if (r["solver"], r["rule"]) == ("Heun()", "log_snr")
    }
    assert errors[16] / errors[64] > 8.0  # order 2: 16 in the limit

    whole, halves = tmp_path / "whole", [tmp_path / "deterministic", tmp_path / "stochastic"]
    for half in halves:
        half.mkdir()
        kept = [record for record in results["records"] if record["kind"] == half.name]
        (half / "records.json").write_text(json.dumps({**results, "records": kept}))
    assert experiment.main(["--combine", *map(str, halves), "--output", str(whole)]) == 0
    assert json.loads((whole / "records.json").read_text()) == results
    assert (whole / "best.md").read_text() == table
