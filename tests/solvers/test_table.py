"""The table of solvers is complete, says of each what is so, and is the one that the README shows."""

import inspect
import json
from pathlib import Path

import diffrax
import pytest

import sdelab
from sdelab import solvers
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC
from sdelab.solvers.table import RESULTS, claimed_order, table

ROOT = Path(__file__).resolve().parents[2]
ROWS = {(row.kind, row.name): row for row in table()}


def test_every_solver_of_sdelab_is_in_it():
    classes = {c for _, c in inspect.getmembers(solvers, inspect.isclass) if issubclass(c, AbstractReverseSolver)}
    final = {c for c in classes if not inspect.isabstract(c)}
    assert final <= {type(solver) for solver in (*DETERMINISTIC.values(), *STOCHASTIC.values())}


def test_names_build_the_solvers():
    """A name in the table is the expression that one writes."""
    ours = [s for s in (*DETERMINISTIC.values(), *STOCHASTIC.values()) if isinstance(s, AbstractReverseSolver)]
    names = vars(solvers) | {type(solver).__name__: type(solver) for solver in ours} | {"diffrax": diffrax}
    for catalogue in (DETERMINISTIC, STOCHASTIC):
        for name, solver in catalogue.items():
            built = eval(name, dict(names))
            assert repr(built) == repr(solver)


def test_kinds():
    for name, solver in DETERMINISTIC.items():
        assert not isinstance(solver, AbstractReverseSolver) or solver.kind == "deterministic", name
    for name, solver in STOCHASTIC.items():
        assert not isinstance(solver, AbstractReverseSolver) or solver.kind == "stochastic", name


@pytest.mark.parametrize(
    ("kind", "name", "claimed", "evaluations", "start", "needs", "adaptive"),
    [
        ("deterministic", "Heun()", 2, 2, 0, "kernel", False),
        ("deterministic", "diffrax.Tsit5()", 5, 6, 1, "drift and diffusion", True),
        ("deterministic", "diffrax.Kvaerno5()", 5, None, None, "drift and diffusion, samples one by one", True),
        ("stochastic", "EulerMaruyama()", 1, 1, 0, "drift and diffusion", False),
        ("stochastic", "Ancestral()", 1, 1, 0, "kernel", False),
        ("stochastic", "PredictorCorrector(predictor=Ancestral(), corrector=Langevin())", None, 2, 0, "kernel", False),
        ("stochastic", "diffrax.ShARK()", 2, 2, 0, "drift and diffusion", True),
        ("stochastic", "diffrax.SlowRK()", 2, 2, 0, "drift and diffusion", False),
    ],
)
def test_known_rows(kind, name, claimed, evaluations, start, needs, adaptive):
    row = ROWS[kind, name]
    assert (row.claimed_order, row.evaluations, row.start, row.needs, row.adaptive) == (
        claimed,
        evaluations,
        start,
        needs,
        adaptive,
    )


def test_measured_orders_are_the_lowest_of_those_stored():
    stored = json.loads((ROOT / "sdelab" / "solvers" / RESULTS).read_text())["orders"]
    for (kind, name), row in ROWS.items():
        assert row.measured_order == (min(stored[kind][name].values()) if stored[kind].get(name) else None)
        assert (row.measured_order is None) == (row.claimed_order is None), name


def test_readme_shows_it():
    assert str(table()) in (ROOT / "README.md").read_text()


def test_a_solver_of_ones_own_claims_nothing_unless_it_says_so():
    class Mine(solvers.AbstractReverseSolver):
        kind = "deterministic"

        def advance(self, process, x, interval, memory):
            raise NotImplementedError

        def evaluations(self, steps, to_data):
            return steps

        def draws(self):
            return 0

    assert claimed_order(Mine(), "deterministic") is None
    assert Mine().order(None) is None


def test_markdown():
    lines = str(table()).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert all(line.count("|") == 8 for line in lines)
    assert repr(table()) == str(table())
    assert sdelab.solvers.catalog.DETERMINISTIC is DETERMINISTIC
