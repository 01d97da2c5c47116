"""`check_solver` passes what we ship, and names what is wrong with a broken solver."""

import re

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import sdelab
from sdelab import solvers
from sdelab.solvers.base import Step
from sdelab.solvers.dpm_solver_multistep import DPMSolverPlusPlus3M
from sdelab.testing.report import Level
from sdelab.testing.solver import CHECKS, check_solver, findings_of, kinds, report_solver

SDE = sdelab.VP()


def broken(base, **methods):
    """`base` with some methods replaced."""
    return type("Broken", (base,), {"__annotations__": {}, **methods})()


def backwards(self, process, x, interval, memory):
    x1 = x + (interval.t0 - interval.t1) * process.drift(x, interval.t0)
    return Step(x1, x1)


def standing(self, process, x, interval, memory):
    """From t0 to t0: the interval is taken for one of length zero."""
    x1 = x - (interval.t0 - interval.t0) * process.drift(x, interval.t0)
    return Step(x1, x1)


def stale(self, process, x, interval, memory):
    """Heun's second evaluation at the first one's place."""
    sde, t0, t1 = process.sde, interval.t0, interval.t1
    h = sde.sigma(t1) / sde.alpha(t1) - sde.sigma(t0) / sde.alpha(t0)
    eps0, eps1 = process.noise(x, t0), process.noise(x, t0)
    x1 = sde.alpha(t1) * (x / sde.alpha(t0) + 0.5 * h * (eps0 + eps1))
    return Step(x1, x1)


def loud(self, process, x, interval, memory):
    t0, h = interval.t0, interval.t0 - interval.t1
    x_mean = x - h * process.drift(x, t0)
    return Step(x_mean + process.diffusion(t0) * interval.noise[0], x_mean)


def normalised(self, process, x, interval, memory):
    drift = process.drift(x, interval.t0)
    drift = drift / jnp.sqrt(1.0 + jnp.mean(drift**2))
    x1 = x - (interval.t0 - interval.t1) * drift
    return Step(x1, x1)


def widening(self, process, x, interval, memory):
    x1 = x - np.asarray(1.0, np.float64) * (interval.t0 - interval.t1) * process.drift(x, interval.t0)
    return Step(x1, x1)


def dividing(self, process, x, interval, memory):
    x1 = x - (interval.t0 - interval.t1) * process.drift(x, interval.t0)
    x1 = x1 * process.sde.sigma(interval.t1) / process.sde.sigma(interval.t1)
    return Step(x1, x1)


def detached(self, process, x, interval, memory):
    x1 = x - (interval.t0 - interval.t1) * jax.lax.stop_gradient(process.drift(x, interval.t0))
    return Step(x1, x1)


LEFT_BEHIND = {}


def remembering(self, process, x, interval, memory):
    """The last step's drift, kept outside of the memory."""

    def swap(drift):
        before = LEFT_BEHIND.get(drift.shape, drift)
        LEFT_BEHIND[drift.shape] = np.array(drift)
        return before

    drift = process.drift(x, interval.t0)
    before = io_callback(swap, jax.ShapeDtypeStruct(drift.shape, drift.dtype), drift)
    x1 = x - (interval.t0 - interval.t1) * (1.5 * drift - 0.5 * before)
    return Step(x1, x1)


class Euler(solvers.AbstractReverseSolver):
    """A solver of one's own, in ten lines: right, and the base of the broken ones."""

    kind = "deterministic"

    def advance(self, process, x, interval, memory):
        x1 = x - (interval.t0 - interval.t1) * process.drift(x, interval.t0)
        return Step(x1, x1)

    def claimed_order(self):
        return 1

    def evaluations(self, steps, to_data):
        return steps

    def draws(self):
        return 0


BROKEN = {
    "wrong sign": (
        Euler,
        {"advance": backwards},
        "small step",
        r"moves -1 times as far as the drift: the sign is wrong",
    ),
    "no advance to t1": (Euler, {"advance": standing}, "small step", r"it does not go from t0 to t1"),
    "noise without sqrt(dt)": (solvers.EulerMaruyama, {"advance": loud}, "small step", r"sqrt\(h\) is missing"),
    "stale second evaluation": (solvers.Heun, {"advance": stale}, "order", r"claimed 2, measured 1\.0\d: errors"),
    "history leaks": (Euler, {"advance": remembering}, "memory", "history leaks between them"),
    "evaluations miscounted": (
        solvers.Heun,
        {"evaluations": lambda self, steps, to_data: steps},
        "evaluations",
        "in 1 steps 1 are declared and 2 made; in 2 steps 2 are declared and 4 made",
    ),
    "batch-coupled norm": (Euler, {"advance": normalised}, "batch", "something is taken over the batch"),
    "float64 leaks": (Euler, {"advance": widening}, "precision", "float32: becomes float64"),
    "divides by sigma": (
        Euler,
        {"advance": dividing},
        "last step",
        r"to t = 0 gives nan: something is divided by sigma",
    ),
    "gradient is cut": (Euler, {"advance": detached}, "gradients", r"gradients: by the score: 0 against"),
    "raises": (Euler, {"advance": lambda self: None}, "small step", "could not be carried out, TypeError"),
}
SLOW = ("stale second evaluation", "gradient is cut", "batch-coupled norm")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in BROKEN])
def test_names_what_is_broken(name, unhooked):
    base, methods, check, words = BROKEN[name]
    with jax.numpy_dtype_promotion("standard"):  # as a user has it
        findings = findings_of(check, broken(base, **methods), SDE)
    failures = [str(finding) for finding in findings if finding.level is Level.FAILURE]
    assert any(re.search(words, failure) for failure in failures), failures


@pytest.mark.slow
def test_moments_tell_a_wrong_drift():
    """The score's share of the drift without the factor 1/2: the wrong process, to the right order."""

    def doubled(self, process, x, interval, memory):
        t0, h = interval.t0, interval.t0 - interval.t1
        score_part = process.drift(x, t0) - process.sde.drift(x, t0)
        x1 = x - h * (process.drift(x, t0) + score_part)
        return Step(x1, x1)

    (finding,) = findings_of("moments", broken(Euler, advance=doubled), SDE)
    assert finding.level is Level.FAILURE
    assert "standard errors are" in finding.message


@pytest.mark.parametrize(
    ("solver", "bias"),
    [
        pytest.param(Euler(), 0.0, id="own"),
        pytest.param(DPMSolverPlusPlus3M(), 0.0, id="multistep"),
        pytest.param(solvers.PredictorCorrector(solvers.Ancestral(), solvers.Langevin()), 0.03, id="corrector"),
    ],
)
@pytest.mark.slow
def test_passes(solver, bias):
    report = check_solver(solver, bias=bias)
    assert not report.failures
    assert len(report.findings) >= len(CHECKS)
    assert "everything fits together" in str(report)


def test_all_failures_are_listed(monkeypatch):
    solver = broken(Euler, advance=standing)
    monkeypatch.setattr("sdelab.testing.solver.CHECKS", {name: CHECKS[name] for name in ("small step", "memory")})
    report = report_solver(solver)
    assert [finding.level for finding in report.findings] == [Level.FAILURE, Level.OK]
    with pytest.raises(ValueError, match="Broken: 1 of 2 checks failed"):
        check_solver(solver)


def test_kinds():
    assert kinds(solvers.Heun()) == ("deterministic",)
    assert kinds(diffrax.Tsit5()) == ("deterministic",)
    assert kinds(diffrax.Heun()) == ("deterministic", "stochastic")
    assert kinds(diffrax.ShARK()) == ("stochastic",)


def test_arguments(unhooked):
    with pytest.raises(TypeError, match="must be an instance of AbstractSolver"):
        check_solver("heun")
    with pytest.raises(ValueError, match=r"bias = -1\.0"):
        check_solver(Euler(), bias=-1.0)
