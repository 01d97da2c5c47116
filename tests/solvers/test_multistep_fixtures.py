"""Multistep runs of DPM-Solver, UniPC, k-diffusion, azula and diffusers, on exact mixtures, in float64.

Methods in log-SNR and in sigma / alpha do not see alpha: with y = x / alpha a run under any schedule is one under EDM's
process, on the grid of its sigma / alpha. So the published tables need no process of their own.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids
from sdelab.solvers.adams_bashforth import DEIS, ExponentialAdamsBashforth
from sdelab.solvers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M, DPMSolverPlusPlus2M, DPMSolverPlusPlus3M
from sdelab.solvers.history import AbstractEnding, AbstractStart, FullOrder, LowerOrderFinal, LowOrderStart
from sdelab.solvers.multistep import AbstractMultistep
from sdelab.solvers.newton import BH1, BH2
from sdelab.solvers.prediction import DataPrediction, NoisePrediction
from sdelab.solvers.unipc import UniPC
from sdelab.solvers.variable import HalfLogSNR, NoiseToSignal
from sdelab.testing.order import walk

LOW, LOWER = LowOrderStart(), LowerOrderFinal()


def flow_of(arrays, sde):
    numbers = (jnp.asarray(arrays[name], jnp.float64) for name in ("gmm_means", "gmm_covs", "gmm_weights"))
    return sdelab.ProbabilityFlow(sde, sdelab.exact.GaussianMixture(*numbers).score(sde))


def run(arrays, solver, unit, ratios):
    """The end of a run from `unit` times the first of the `ratios` sigma / alpha, in y = x / alpha."""
    flow = flow_of(arrays, sdelab.EDM(t_max=1000.0))
    return np.asarray(walk(solver, flow, jnp.asarray(unit, jnp.float64) * ratios[0], np.asarray(ratios, np.float64)))


def assert_same(ours, theirs, rtol=1e-8):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * np.max(np.abs(theirs)))


def largest(difference):
    return float(np.max(np.abs(difference)))


def vp_truth(flow, x_T):
    return walk(diffrax.Dopri8(), flow, x_T, grids.log_snr(sdelab.VP(), 256))


class HalvedSecondDifference(HalfLogSNR):
    """What the published code of order 3 does: half of the quadratic moment."""

    def moments(self, prediction, span, inner, count):
        exact = prediction.moments(span, count)
        return [*exact[:2], *(0.5 * m for m in exact[2:])]


class Published3M(AbstractMultistep):
    """DPM-Solver++(3M) or DPM-Solver(3M) as published, defect included."""

    corrected: DPMSolverPlusPlus3M | DPMSolver3M
    ending: AbstractEnding
    start: AbstractStart = LOW

    def points(self):
        return 3

    def prediction(self):
        return self.corrected.prediction()

    def variable(self):
        return HalvedSecondDifference()

    def linear_term(self):
        return BH2()

    def correction(self):
        return self.corrected.correction()


DPM_SOLVER = {
    "eps_multi1_logSNR": ExponentialAdamsBashforth(1, NoisePrediction()),
    "eps_multi2_logSNR": DPMSolver2M(),
    "eps_multi2_taylor_quad": ExponentialAdamsBashforth(2, NoisePrediction()),
    "x0_multi1_logSNR": ExponentialAdamsBashforth(1),
    "x0_multi2_logSNR": DPMSolverPlusPlus2M(),
    "x0_multi2_taylor_quad": ExponentialAdamsBashforth(2),
    "x0_multi2_denoise": DPMSolverPlusPlus2M(),
}


@pytest.mark.slow
def test_dpm_solver(load_fixture):
    arrays = load_fixture("D_samplers/dpm_solver_gmm2")
    with jax.enable_x64(True):
        flow, x_T = flow_of(arrays, sdelab.VP()), jnp.asarray(arrays["x_T"], jnp.float64)
        for name, solver in DPM_SOLVER.items():
            times = arrays[f"{name}/eval_t"]
            if not name.endswith("denoise"):
                assert_same(walk(solver, flow, x_T, np.append(times, 1e-3)), arrays[f"{name}/final"])
                assert len(times) == solver.evaluations(len(times), False)
            else:  # the last evaluation is Tweedie's, at the end of the grid
                x = flow.denoise(walk(solver, flow, x_T, times), jnp.asarray(1e-3))
                assert_same(x, arrays[f"{name}/final"])


THIRD_ORDER = {
    "eps_multi3_logSNR": (DPMSolver3M, FullOrder()),
    "eps_multi3_uniform8_lowfinal": (DPMSolver3M, LOWER),
    "x0_multi3_logSNR": (DPMSolverPlusPlus3M, FullOrder()),
    "x0_multi3_uniform8_lowfinal": (DPMSolverPlusPlus3M, LOWER),
    "x0_multi3_uniform8_nolowfinal": (DPMSolverPlusPlus3M, FullOrder()),
}


@pytest.mark.slow
def test_dpm_solver_of_third_order_has_half_of_a_term(load_fixture):
    """The reference has half of the second difference: with that, ours is the reference; without, it is of order 3."""
    arrays = load_fixture("D_samplers/dpm_solver_gmm2")
    with jax.enable_x64(True):
        flow, x_T = flow_of(arrays, sdelab.VP()), jnp.asarray(arrays["x_T"], jnp.float64)
        truth = vp_truth(flow, x_T)
        for name, (solver, ending) in THIRD_ORDER.items():
            grid, reference = np.append(arrays[f"{name}/eval_t"], 1e-3), arrays[f"{name}/final"]
            assert_same(walk(Published3M(solver(), ending), flow, x_T, grid), reference)
            assert largest(walk(solver(LOW, ending), flow, x_T, grid) - reference) > 1e-3
        for solver in (DPMSolver3M(), DPMSolverPlusPlus3M()):
            errors = []
            for n in (100, 400):
                grid = grids.log_snr(sdelab.VP(), n)
                for method in (solver, Published3M(solver, FullOrder())):
                    errors.append(np.median(np.abs(walk(method, flow, x_T, grid) - truth)))
            assert np.emath.logn(4, errors[0] / errors[2]) > 2.8
            assert np.emath.logn(4, errors[1] / errors[3]) < 2.3


@pytest.mark.slow
def test_unipc(load_fixture):
    arrays = load_fixture("D_samplers/unipc_gmm2")
    predictions, coefficients = {"x0": DataPrediction(), "eps": NoisePrediction()}, {"bh1": BH1(), "bh2": BH2()}
    runs = [name.removesuffix("/final") for name in arrays if name.endswith("/final")]
    assert len(runs) == 14
    with jax.enable_x64(True):
        flow, x_T = flow_of(arrays, sdelab.VP()), jnp.asarray(arrays["x_T"], jnp.float64)
        for name in runs:
            prediction, variant, order, *rest = name.split("_")
            ending = FullOrder() if rest[-1] == "nolowfinal" else LOWER
            solver = UniPC(int(order[1]), coefficients[variant], predictions[prediction], start=LOW, ending=ending)
            grid = np.append(arrays[f"{name}/eval_t"], 1e-3)
            assert_same(walk(solver, flow, x_T, grid), arrays[f"{name}/final"])
            assert solver.evaluations(len(grid) - 1, False) == len(grid) - 1


K_DIFFUSION = {
    "lms4": ("karras12", DEIS(4, NoiseToSignal(), start=LOW)),
    "lms2": ("expo10", DEIS(2, NoiseToSignal(), start=LOW)),
    "dpmpp_2m": ("karras12", DPMSolverPlusPlus2M()),
    "dpmpp_2m_expo": ("expo10", DPMSolverPlusPlus2M()),
    "dpmpp_2m_vp": ("vp14", DPMSolverPlusPlus2M()),
}


def test_k_diffusion(load_fixture):
    """All of them end at sigma = 0."""
    arrays = load_fixture("D_samplers/kdiffusion_gmm2")
    with jax.enable_x64(True):
        for name, (grid, solver) in K_DIFFUSION.items():
            assert_same(run(arrays, solver, arrays["x_unit"], arrays[f"sigmas/{grid}"]), arrays[f"{name}/final"])


AZULA = {
    "zab3": [DEIS(3, NoiseToSignal(), start=LOW), DEIS(3, start=LOW)],  # under EDM's process t is sigma / alpha
    "xeab2": [ExponentialAdamsBashforth(2)],
    "xeab3": [ExponentialAdamsBashforth(3, start=LOW)],
    "zeab2": [ExponentialAdamsBashforth(2, NoisePrediction())],
}


@pytest.mark.slow
def test_azula(load_fixture):
    arrays = load_fixture("D_samplers/azula_gmm2")
    with jax.enable_x64(True):
        for name, solvers in AZULA.items():
            alpha, sigma = arrays[f"{name}/alpha"], arrays[f"{name}/sigma"]
            for solver in solvers:
                ours = alpha[-1] * run(arrays, solver, arrays["x_unit"], sigma / alpha)
                assert_same(ours, arrays[f"{name}/final"])


DIFFUSERS = {
    "dpmpp_2m": DPMSolverPlusPlus2M(),
    "unipc_bh2_o2": UniPC(2, start=LOW, ending=LOWER),
    "deis_o3": ExponentialAdamsBashforth(3, NoisePrediction(), start=LOW, ending=LOWER),
}


def from_diffusers(arrays, name, solver):
    """The end of a diffusers run, on the scheduler's grid of sigma / alpha."""
    ratios = arrays[f"{name}/sigmas"].astype(np.float64)
    y = run(arrays, solver, arrays["x_T"] * np.sqrt(1.0 + ratios[0] ** -2), ratios)
    return y / np.sqrt(1.0 + ratios[-1] ** 2)


def test_diffusers(load_fixture):
    """The scheduler's tables are float32."""
    arrays = load_fixture("D_samplers/diffusers_gmm2")
    with jax.enable_x64(True):
        for name, solver in DIFFUSERS.items():
            assert_same(from_diffusers(arrays, name, solver), arrays[f"{name}/final"], rtol=1e-5)


@pytest.mark.slow
def test_diffusers_runs_that_ours_do_not_match(load_fixture):
    """PNDM weights unequal steps as equal ones: a polynomial in sigma / alpha through as many points, with two evaluations
    less, is nearer to the truth. The 3M run on Karras's grid has half of the second difference, and asks the model at
    rounded times: ours, of order 3, differs from it."""
    arrays = load_fixture("D_samplers/diffusers_gmm2")
    with jax.enable_x64(True):
        levels = arrays["pndm/model_alpha_sigma"]
        levels = np.concatenate([levels[:2], levels[3:]])  # the second time is evaluated twice
        ratios, scale = levels[:, 1] / levels[:, 0], levels[-1, 0]
        unit = arrays["x_T"] / levels[0, 1]
        fine = grids.log_snr(sdelab.EDM(t_max=1000.0), 256, t_max=ratios[0], t_min=ratios[-1])
        truth = scale * run(arrays, diffrax.Dopri8(), unit, fine)
        ours = scale * run(arrays, DEIS(4, NoiseToSignal(), start=LOW), unit, ratios)
        assert len(ratios) == int(arrays["pndm/eps_calls"]) - 1
        assert largest(ours - truth) < 0.7 * largest(arrays["pndm/final"] - truth)

        ours = from_diffusers(arrays, "dpmpp_3m_karras", DPMSolverPlusPlus3M(start=LOW, ending=LOWER))
        assert largest(ours - arrays["dpmpp_3m_karras/final"]) > 1e-2
