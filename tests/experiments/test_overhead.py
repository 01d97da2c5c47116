"""The hand-written loops compute what sdelab computes, in float64: the comparison of their times is of equals."""

import jax
import numpy as np
import pytest

import sdelab
from experiments.overhead.methods import METHODS
from experiments.overhead.rivals import kernel, kernel_at_level
from experiments.overhead.solvers import AGREEMENT, largest_gap
from experiments.work_precision.cases import SOLVERS
from sdelab.solvers.base import AbstractReverseSolver


def test_the_kernel_by_hand_is_that_of_VP():
    times = np.array([1e-3, 0.02, 0.3, 1.0])
    at, sde = kernel(times), sdelab.VP()
    with jax.enable_x64(True):
        for values, expected in ((at.alpha, sde.alpha(times)), (at.sigma, sde.sigma(times))):
            np.testing.assert_allclose(values, expected, rtol=1e-12)
        np.testing.assert_allclose(2.0 * at.level, sde.log_snr(times), rtol=1e-11)
    np.testing.assert_allclose(kernel_at_level(at.level).t, times, rtol=1e-11)


def test_every_solver_of_the_catalogue_has_its_loop():
    ours = {type(solver) for named in SOLVERS.values() for solver in named.values()}
    ours = {kind for kind in ours if issubclass(kind, AbstractReverseSolver)}
    assert ours - {type(method.solver) for method in METHODS.values()} == {sdelab.solvers.AncestralSMLD}  # refuses VP


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PredictorCorrector", "Churn(Heun)", "UniPC(3)", "SDEDPMSolverPlusPlus2M"])
def test_both_sides_agree(name):
    """One of each kind of loop; the experiment itself checks every method before it measures."""
    assert largest_gap(METHODS[name]) < AGREEMENT
