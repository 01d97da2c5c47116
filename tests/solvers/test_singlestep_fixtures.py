"""Every recorded run of a single-step method of the probability flow that draws no noise, in float64.

EDM and its ablation, k-diffusion, DPM-Solver, azula, diffusers. Runs in noise levels, and runs of a table, go by `EDM`: divided
by alpha, all flows are one (test_singlestep.py), and one compiled step serves all libraries.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.solvers.base import Interval
from sdelab.solvers.ddim import DDIM
from sdelab.solvers.dpm_solver import DPMSolver2, DPMSolver3
from sdelab.solvers.dpm_solver_plus_plus import DPMSolverPlusPlus2S, DPMSolverPlusPlus3S
from sdelab.solvers.newton import VaryingCoefficients
from sdelab.solvers.singlestep import AllPoints
from sdelab.testing.order import walk

LEVELS, VP = sdelab.EDM(t_max=2e4), sdelab.VP()
BATCH = 16
BY_ORDER = {1: DDIM(), 2: DPMSolver2(), 3: DPMSolver3()}


def flow(arrays, sde):
    parts = (jnp.asarray(arrays[f"gmm_{name}"], jnp.float64) for name in ("means", "covs", "weights"))
    return sdelab.ProbabilityFlow(sde, sdelab.exact.GaussianMixture(*parts).score(sde))


def run(solver, process, x_T, times):
    """Over the times; a smaller batch is filled up, so that its run shares the compiled step of the others."""
    x = np.resize(np.asarray(x_T, np.float64), (BATCH, *x_T.shape[1:]))
    return np.asarray(walk(solver, process, jnp.asarray(x), np.asarray(times)))[: len(x_T)]


def check(ours, arrays, name, rtol=1e-9):
    final = arrays[f"{name}/final"]
    np.testing.assert_allclose(ours, final, rtol=rtol, atol=rtol * np.abs(final).max())


EDM_RUNS = {
    "heun18": (18, 0.002, 80.0, 7.0),
    "heun10_rho3": (10, 0.01, 20.0, 3.0),
    "netlimits12": (12, 0.02, 50.0, 7.0),
}


@pytest.mark.parametrize("size", ["gmm2", pytest.param("gmm8", marks=pytest.mark.slow)])
def test_edm(load_fixture, size):
    """Their grids are `grids.edm`, too. The mixture in eight dimensions is for this one: all rules are elementwise."""
    arrays = load_fixture(f"D_samplers/edm_{size}")
    with jax.enable_x64(True):
        for name, (n, low, high, rho) in EDM_RUNS.items():
            times = grids.edm(LEVELS, n, rho=rho, t_min=low, t_max=high)
            np.testing.assert_allclose(times[:-1], arrays[f"{name}/eval_sigma"][::2], rtol=1e-12)
            check(
                run(solvers.Heun(), flow(arrays, LEVELS), arrays["latents"].astype(float) * high, times), arrays, name
            )


def test_ablation_in_the_noise_level(load_fixture):
    arrays = load_fixture("D_samplers/ablation_gmm2")
    with jax.enable_x64(True):
        for name, solver, every in (("iddpm_heun", solvers.Heun(), 2), ("edm_euler", DDIM(), 1)):
            times = np.append(arrays[f"{name}/eval_sigma"][::every], 0.0)
            check(run(solver, flow(arrays, LEVELS), arrays["latents"].astype(float) * times[0], times), arrays, name)


def published_vp():
    return VP, np.append(np.linspace(1.0, 1e-3, 16), 0.0), float(VP.sigma(1.0))


def published_ve():
    """EDM's table 1: sigma = sqrt(t), from 100 to 0.02."""
    sde = sdelab.FromSchedule(lambda t: 0.0 * t + 1.0, jnp.sqrt, t_max=1e4)
    return sde, np.append(1e4 * (0.02**2 / 1e4) ** np.linspace(0.0, 1.0, 16), 0.0), 100.0


ABLATION_RUNS = {
    "vp_heun": (diffrax.Heun(), published_vp),
    "ve_heun": (diffrax.Heun(), published_ve),
    "edm_alpha0.5": (diffrax.Midpoint(), lambda: (LEVELS, grids.edm(LEVELS, 16, t_min=0.002, t_max=80.0), 80.0)),
}


@pytest.mark.parametrize("name", ABLATION_RUNS)
@pytest.mark.slow
def test_ablation_in_time(load_fixture, name):
    """Heun's and the midpoint rule in t and x are diffrax's, on our flow; the last step, to t = 0, is Euler's in t."""
    arrays, (solver, setting) = load_fixture("D_samplers/ablation_gmm2"), ABLATION_RUNS[name]
    with jax.enable_x64(True):
        sde, times, scale = setting()
        process = flow(arrays, sde)
        x = run(solver, process, arrays["latents"].astype(float) * scale, times[:-1])
        last = jnp.asarray(times[-2])
        check(x - times[-2] * np.asarray(process.drift(jnp.asarray(x), last)), arrays, name)


def test_k_diffusion(load_fixture):
    arrays = load_fixture("D_samplers/kdiffusion_gmm2")
    times = arrays["sigmas/karras12"]
    with jax.enable_x64(True):
        process, x_T = flow(arrays, LEVELS), arrays["x_unit"].astype(float)
        for name, solver in (("euler", DDIM()), ("heun", solvers.Heun()), ("dpm_2", DPMSolver2())):
            check(run(solver, process, x_T * times[0], times), arrays, name)
        for name, orders in (("dpm_fast12", (3, 3, 3, 2, 1)), ("dpm_fast13", (3, 3, 3, 3, 1))):
            times_fast, x = np.exp(np.linspace(np.log(30.0), np.log(0.02), 6)), x_T * 30.0
            for i, order in enumerate(orders):
                x = run(BY_ORDER[order], process, x, times_fast[i : i + 2])
            check(x, arrays, name)


def test_azula(load_fixture):
    """Schedules that end at sigma > 0, and a start that is not multiplied by alpha."""
    arrays = load_fixture("D_samplers/azula_gmm2")
    rules = {"ddim": DDIM(), "euler_ve": DDIM(), "heun_cos": solvers.Heun(), "heun_rect": solvers.Heun()}
    with jax.enable_x64(True):
        for name, solver in rules.items():
            alpha, sigma = arrays[f"{name}/alpha"], arrays[f"{name}/sigma"]
            y = run(solver, flow(arrays, LEVELS), arrays["x_unit"].astype(float) * sigma[0] / alpha[0], sigma / alpha)
            check(alpha[-1] * y, arrays, name)


def test_azula_ddim_by_the_step_that_it_takes(load_fixture):
    """The same run where alpha is not 1, with alpha as azula has it and its noise 1e-6 too small."""
    arrays = load_fixture("D_samplers/azula_gmm2")
    sde = sdelab.FromSchedule(lambda t: 1e-3 ** (t**2), lambda t: jnp.sqrt(1.0 - 1e-6 ** (t**2) + 1e-6))
    with jax.enable_x64(True):
        x = run(DDIM(), flow(arrays, sde), arrays["x_unit"], np.linspace(1.0, 0.0, 17))
    check(x, arrays, "ddim")


def test_diffusers(load_fixture):
    """Their tables are in float32."""
    arrays = load_fixture("D_samplers/diffusers_gmm2")
    with jax.enable_x64(True):
        process = flow(arrays, LEVELS)
        for name, solver in (("euler_karras", DDIM()), ("heun", solvers.Heun())):
            times = np.unique(arrays[f"{name}/sigmas"].astype(float))[::-1]
            check(run(solver, process, arrays["x_T"].astype(float) * times[0], times), arrays, name, 1e-6)
        name = "ddim_leading20"
        times, scale = levels_of(arrays, arrays[f"{name}/timesteps"].astype(int))
        check(run(DDIM(), process, arrays["x_T"].astype(float) / scale[0], np.append(times, 0.0)), arrays, name, 1e-6)


def levels_of(arrays, steps):
    """sigma / alpha, and alpha, at steps of the table."""
    alpha = np.sqrt(arrays["alphas_cumprod"].astype(float))[steps]
    return np.sqrt(1.0 / alpha**2 - 1.0), alpha


def test_diffusers_linspace_steps_beside_its_own_times(load_fixture):
    """There a step of DDIM ends 1000 // 15 = 66 below its start, and the next one starts at the next time, 71 below.

    So the run is reproduced by steps of ours that do the same, and by no grid.
    """
    arrays, name = load_fixture("D_samplers/diffusers_gmm2"), "ddim_linspace15_alpha0"
    steps = arrays[f"{name}/timesteps"].astype(int)
    times, alpha = levels_of(arrays, steps)
    with jax.enable_x64(True):
        process, x = flow(arrays, LEVELS), arrays["x_T"].astype(float)
        on_a_grid = alpha[-1] * run(DDIM(), process, x / alpha[0], times)
        for start in steps[:-1]:
            ends, scale = levels_of(arrays, np.array([start, start - 1000 // 15]))
            x = scale[1] * run(DDIM(), process, x / scale[0], ends)
    check(x, arrays, name, 1e-6)
    assert np.abs(on_a_grid - arrays[f"{name}/final"]).max() > 0.01


@eqx.filter_jit
def step(solver, process, x, interval):
    return solver.advance(process, x, interval, None).x


def uniform_inner_times(solvers_by_order, process, x, orders):
    """ "time_uniform" of the published single steps: equal times, in groups of as many as the order of the step."""
    times = np.linspace(1.0, 1e-3, sum(orders) + 1)
    ends = np.cumsum([0, *orders])
    for low, high, order in zip(ends[:-1], ends[1:], orders, strict=True):
        t0, t1, *inner = (jnp.asarray(times[i]) for i in (low, high, *range(low + 1, high)))
        interval = Interval(
            t0, t1, jnp.zeros((), int), jnp.zeros((), bool), jnp.zeros((0, *x.shape)), jnp.asarray(inner)
        )
        x = step(solvers_by_order[order], process, x, interval)
    return np.asarray(x)


DPM_SOLVERS = {
    "eps": {1: DDIM(), 2: DPMSolver2(), 3: DPMSolver3()},
    "x0": {1: DDIM(), 2: DPMSolverPlusPlus2S(), 3: DPMSolverPlusPlus3S()},
}
TAYLOR = {
    "eps": {2: DPMSolver2(linear_term=VaryingCoefficients()), 3: DPMSolver3(last=AllPoints())},
    "x0": {2: DPMSolverPlusPlus2S(linear_term=VaryingCoefficients()), 3: DPMSolverPlusPlus3S(last=AllPoints())},
}
LOG_SNR_RUNS = {
    "single1_logSNR": (DPM_SOLVERS, [1] * 12),
    "multi1_logSNR": (DPM_SOLVERS, [1] * 12),
    "single2_logSNR": (DPM_SOLVERS, [2] * 6),
    "fixed2": (DPM_SOLVERS, [2] * 6),
    "single3_logSNR": (DPM_SOLVERS, [3, 3, 3, 2, 1]),
    "single3_taylor": (TAYLOR, [3, 3, 3, 2]),
}


@pytest.mark.parametrize("kind", DPM_SOLVERS)
@pytest.mark.slow
def test_dpm_solver(load_fixture, kind):
    """Single steps in log-SNR, whose last ones are of lower order, so that the evaluations are as many as asked for."""
    arrays = load_fixture("D_samplers/dpm_solver_gmm2")
    with jax.enable_x64(True):
        process = flow(arrays, VP)
        for name, (rules, orders) in LOG_SNR_RUNS.items():
            if f"{kind}_{name}/final" not in arrays:
                continue
            x, times = arrays["x_T"], grids.log_snr(VP, len(orders))
            for i, order in enumerate(orders):
                x = run(rules[kind][order], process, x, times[i : i + 2])
            check(x, arrays, f"{kind}_{name}")
        x = uniform_inner_times(DPM_SOLVERS[kind], process, jnp.asarray(arrays["x_T"], float), [3, 3, 3, 3, 1])
        check(x, arrays, f"{kind}_single3_uniform13")


@pytest.mark.slow
def test_dpm_solver_adaptive(load_fixture):
    """Their step control is not shipped: a fixed grid of ours, with no more evaluations, is closer to the truth."""
    arrays = load_fixture("D_samplers/dpm_solver_gmm2")
    with jax.enable_x64(True):
        process = flow(arrays, VP)
        truth = run(DPMSolver3(), process, arrays["x_T"], grids.cosine(VP, 1200))
        ours = run(DPMSolver3(), process, arrays["x_T"], grids.cosine(VP, 54))
    for name in ("eps_adaptive2", "eps_adaptive3"):
        assert DPMSolver3().evaluations(54, False) <= len(arrays[f"{name}/eval_t"])
        assert np.abs(ours - truth).max() < np.abs(arrays[f"{name}/final"] - truth).max() < 2e-3
