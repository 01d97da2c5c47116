r"""Moments of a two-component mixture at t_min: every process with every solver, from the exact marginal at t_max.

Each solver's step is compiled once, on `OneOf` all processes; the steps are taken from Python. Two numbers of steps, n
and 2 n, tell the bias of the finer result, to leading order: $B = |m_n - m_{2n}|/(2^p - 1)$ for a method of order p. What is
allowed is twice that, for the orders that follow (B itself is at most `LARGEST_BIAS`), and the statistical error:

- a deterministic solver starts from the same states as the fine solution by Dopri8, and there is none;
- a stochastic one has four standard errors of `WALK_BATCH` samples, and B has its own.
"""

import jax
import numpy as np
import pytest

from sdelab.solvers.catalog import DETERMINISTIC as CATALOGUED_DETERMINISTIC
from sdelab.solvers.catalog import STOCHASTIC as CATALOGUED_STOCHASTIC
from sdelab.solvers.diffrax_terms import is_per_sample
from sdelab.solvers.table import claimed_order
from sdelab.testing.order import draws_of, walk
from tests.solvers.cases import PROCESSES
from tests.solvers.moments import (
    FLOW_BATCH,
    exact_moments,
    fine,
    grid,
    moments,
    process_of,
    scales,
    standard_errors,
    x_T,
)

WALK_BATCH, FLOW_STEPS, WALK_STEPS = 2048, (80, 160), (100, 200)
LARGEST_BIAS = 0.1  # of a standard deviation: with more, two step sizes would not tell much
ROUNDING = 2e-4  # of float32 states over some hundred steps


def check(errors, differences, claimed, allowed):
    """The finer result's errors in its scales, against what the two step sizes tell, and `allowed`."""
    bias = np.max(np.abs(differences)) / (2.0 ** (claimed or 1) - 1.0)
    assert bias <= LARGEST_BIAS, f"the step sizes differ by {bias:.2g}"
    assert np.all(np.abs(errors) <= 2.0 * bias + allowed), (errors, bias, allowed)


OWN_TABLES = ("AncestralDDPM()", "AncestralSMLD()")  # one process each: tests/solvers/test_score_sde_fixtures.py
ON_EVERY_PROCESS = {name: solver for name, solver in CATALOGUED_STOCHASTIC.items() if name not in OWN_TABLES}
LOWER_ORDERS = (
    *("UniPC(order=1)", "UniPC(order=2)"),
    *(f"{family}(order={p})" for family in ("ExponentialAdamsBashforth", "DEIS") for p in (1, 2, 3)),
)  # the same code as the highest one; their orders are measured
EXPLICIT = {
    name: solver
    for name, solver in CATALOGUED_DETERMINISTIC.items()
    if not is_per_sample(solver) and name not in LOWER_ORDERS
}


@pytest.mark.parametrize("solver", ON_EVERY_PROCESS)
@pytest.mark.slow
def test_stochastic(solver):
    """A Langevin corrector of snr 0.16 has a bias of its own, 1/(1 - snr^2) - 1 = 2.6 % of a variance in equilibrium."""
    bias = 0.03 if "Corrector" in solver else 0.0
    solver = ON_EVERY_PROCESS[solver]
    keys = jax.random.split(jax.random.key(0), 2)
    noises = [jax.random.normal(k, (n, draws_of(solver), WALK_BATCH, 2)) for k, n in zip(keys, WALK_STEPS, strict=True)]
    for name, sde in PROCESSES.items():
        process, start = process_of(name, "stochastic"), x_T(name, WALK_BATCH)
        coarse, finer = (
            moments(walk(solver, process, start, grid(name, n), noise)) / scales(sde)
            for n, noise in zip(WALK_STEPS, noises, strict=True)
        )
        error = 4.0 * standard_errors(name) / np.sqrt(WALK_BATCH)
        check(
            finer - exact_moments(sde) / scales(sde), coarse - finer, claimed_order(solver, "stochastic"), error + bias
        )


@pytest.mark.parametrize("solver", EXPLICIT)
@pytest.mark.slow
def test_deterministic(solver):
    solver = EXPLICIT[solver]
    claimed = claimed_order(solver, "deterministic")
    steps = (200, 400) if claimed == 1 else FLOW_STEPS
    for name, sde in PROCESSES.items():
        process, start = process_of(name, "deterministic"), x_T(name, FLOW_BATCH)
        coarse, finer = (moments(walk(solver, process, start, grid(name, n))) / scales(sde) for n in steps)
        check(finer - fine(name) / scales(sde), coarse - finer, claimed, ROUNDING)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.slow
def test_the_fine_flow_carries_the_mixture(name):
    """Dopri8 from draws of the marginal at t_max ends in draws of that at t_min, to four standard errors."""
    sde = PROCESSES[name]
    errors = (fine(name) - exact_moments(sde)) / scales(sde)
    assert np.all(np.abs(errors) <= 4.0 * standard_errors(name) / np.sqrt(FLOW_BATCH))
