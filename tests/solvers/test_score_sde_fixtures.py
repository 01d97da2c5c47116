"""The steps and whole runs of score_sde's samplers, on an exact mixture, with the recorded noise, in float64."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers

PROCESSES = {
    "vp": lambda: sdelab.VP(beta_min=0.1, beta_max=20.0, t_min=1e-3),
    "ve": lambda: sdelab.VE(sigma_min=0.01, sigma_max=50.0, t_min=1e-5),
    "subvp": lambda: sdelab.SubVP(beta_min=0.1, beta_max=20.0, t_min=1e-3),
}
DISCRETIZATIONS = {"vp": solvers.DDPM, "ve": solvers.SMLD, "subvp": solvers.EulerSteps}
ANCESTRAL = {
    "vp": lambda n: solvers.AncestralDDPM(solvers.DDPM(n)),
    "ve": lambda n: solvers.AncestralSMLD(solvers.SMLD(n)),
}


def damping(name, n):
    return solvers.TableDamping(solvers.DDPM(n)) if name == "vp" else solvers.NoDamping()


def predictors(name, n):
    rules = {
        "euler_maruyama": solvers.ReverseDiffusion(solvers.EulerSteps(n)),
        "reverse_diffusion": solvers.ReverseDiffusion(DISCRETIZATIONS[name](n)),
    }
    if name in ANCESTRAL:
        rules["ancestral_sampling"] = ANCESTRAL[name](n)
    return rules


def exact_score(arrays, sde):
    mixture = sdelab.exact.GaussianMixture(
        jnp.asarray(arrays["gmm_means"].reshape(-1, 2, 2, 2)),
        jnp.asarray(arrays["gmm_covs"]),
        jnp.asarray(arrays["gmm_weights"]),
    )
    return mixture.score(sde)


def interval(t, noise):
    t = jnp.asarray(t, jnp.float64)
    return solvers.Interval(t, 0.5 * t, jnp.zeros((), jnp.int32), jnp.zeros((), bool), jnp.asarray(noise, jnp.float64))


def steps(arrays, function):
    """`function(i)` for each recorded time, stacked as the fixture has it."""
    results = [function(i) for i in range(len(arrays["t"]))]
    return np.stack([np.asarray(r[0]) for r in results]), np.stack([np.asarray(r[1]) for r in results])


def assert_same(ours, arrays, name, places):
    x, x_mean = ours
    np.testing.assert_allclose(x, arrays[f"f64/{name}/x"], rtol=1e-6, atol=places)
    np.testing.assert_allclose(x_mean, arrays[f"f64/{name}/x_mean"], rtol=1e-6, atol=places)


@pytest.mark.parametrize("rule", ["euler_maruyama", "reverse_diffusion", "ancestral_sampling", "reverse_diffusion_pf"])
@pytest.mark.parametrize("name", PROCESSES)
def test_predictor_steps(load_fixture, name, rule):
    if rule == "ancestral_sampling" and name not in ANCESTRAL:
        pytest.skip("the reference has no ancestral step for sub-VP; ours is tested against exact marginals")
    arrays, sde = load_fixture(f"D_samplers/score_sde_{name}"), PROCESSES[name]()
    solver = predictors(name, 1000)[rule.removesuffix("_pf")]
    level = 0.0 if rule.endswith("_pf") else 1.0

    def step(i):
        given = jnp.asarray(arrays["score"][i], jnp.float64)
        process = sdelab.ReverseSDE(sde, lambda x, t: given, stochasticity=level)
        x = jnp.asarray(arrays["x"][i], jnp.float64)
        result = solver.advance(process, x, interval(arrays["t"][i], arrays["z"][i][None]), None)
        return result.x, result.x_mean

    with jax.enable_x64(True):
        assert_same(steps(arrays, step), arrays, rule, 1e-6)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("rule", ["langevin", "ald"])
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_corrector_steps(load_fixture, name, rule, count):
    arrays, sde = load_fixture(f"D_samplers/score_sde_{name}"), PROCESSES[name]()
    corrector = {
        "langevin": solvers.Langevin(0.16, count, solvers.BatchNorms(), damping(name, 1000)),
        "ald": solvers.AnnealedLangevin(0.16, count, damping(name, 1000)),
    }[rule]

    def step(i):
        process = sdelab.ReverseSDE(sde, exact_score(arrays, sde))
        noise = jnp.asarray(np.stack([arrays["z"][i], arrays["z2"][i]])[:count], jnp.float64)
        t = jnp.asarray(arrays["t"][i], jnp.float64)
        return corrector.correct(process, jnp.asarray(arrays["x"][i], jnp.float64), t, noise)

    with jax.enable_x64(True):
        assert_same(steps(arrays, step), arrays, f"{rule}_n{count}", 1e-6)


RUNS = [
    ("vp", "euler_maruyama+none"),
    ("vp", "ancestral_sampling+none"),
    ("vp", "reverse_diffusion+langevin"),
    ("ve", "reverse_diffusion+langevin"),
    ("ve", "ancestral_sampling+ald"),
    ("subvp", "euler_maruyama+none"),
    ("subvp", "reverse_diffusion+none"),
]


@pytest.mark.parametrize(("name", "run"), RUNS)
@pytest.mark.slow
def test_whole_runs(load_fixture, name, run):
    """30 evaluations at linspace(T, eps, 30), each followed by a step of 1/N, as the published code takes them."""
    arrays, sde = load_fixture(f"D_samplers/score_sde_{name}"), PROCESSES[name]()
    predictor, corrector = run.split("+")
    solver = predictors(name, 30)[predictor]
    if corrector == "langevin":
        solver = solvers.PredictorCorrector(
            solver, solvers.Langevin(0.16, 1, solvers.BatchNorms(), damping(name, 30)), solvers.CorrectorFirst()
        )
    if corrector == "ald":
        solver = solvers.PredictorCorrector(solver, solvers.AnnealedLangevin(0.16, 1, damping(name, 30)))
    with jax.enable_x64(True):
        process = sdelab.ReverseSDE(sde, exact_score(arrays, sde))
        x_T = jnp.asarray(arrays[f"pc/{run}/prior_unit"], jnp.float64) * (50.0 if name == "ve" else 1.0)
        noise = arrays[f"pc/{run}/noise"].reshape(30, -1, *x_T.shape)
        arguments = dict(
            solver=solver,
            grid=grids.published(sde, 30),
            noise=solvers.StoredNoise(jnp.asarray(noise, jnp.float64)),
        )
        noisy = sdelab.sample(jax.random.key(0), process, x_T, **arguments)
        clean, info = sdelab.sample_with_info(
            jax.random.key(0), process, x_T, finish=solvers.NoiselessPredictor(), **arguments
        )
    scale = np.abs(arrays[f"pc/{run}/final"]).max()
    np.testing.assert_allclose(noisy, arrays[f"pc/{run}/final_noisy"], rtol=2e-6, atol=2e-6 * scale)
    np.testing.assert_allclose(clean, arrays[f"pc/{run}/final"], rtol=2e-6, atol=2e-6 * scale)
    assert int(info.evaluations[0]) == len(arrays[f"pc/{run}/eval_t"])


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.slow
def test_probability_flow_and_its_denoising_step(load_fixture, name):
    """The reference's RK45 has tolerance 1e-5 for the batch as one system in float32, and an error of up to 7e-4 here;
    ours, at 1e-8, agrees with the float64 truth of F_analytic to 1e-6 (test_flow_truth)."""
    arrays, sde = load_fixture(f"D_samplers/score_sde_{name}"), PROCESSES[name]()
    with jax.enable_x64(True):
        flow = sdelab.ProbabilityFlow(sde, exact_score(arrays, sde))
        start = jnp.asarray(arrays["ode/z"], jnp.float64)
        x = sdelab.sample(None, flow, start, solver=diffrax.Dopri5(), rtol=1e-8, atol=1e-8)
        finish = solvers.NoiselessStep(solvers.ReverseDiffusion(DISCRETIZATIONS[name](1000)))
        denoised = sdelab.sample(None, flow, start, solver=diffrax.Dopri5(), rtol=1e-8, atol=1e-8, finish=finish)
    np.testing.assert_allclose(x, arrays["ode/x"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(denoised, arrays["ode/x_denoised"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", PROCESSES)
def test_discretisations(load_fixture, name):
    """f and G of the published discretisations at the fixture's times, from the tables and their truncated indices."""
    arrays, sde = load_fixture(f"A_sde/{name}"), PROCESSES[name]()
    rule = DISCRETIZATIONS[name](1000)
    with jax.enable_x64(True):
        x = jnp.asarray(arrays["x"], jnp.float64)
        for i, t in enumerate(arrays["t"]):
            f, G = rule.forward(sde, x, interval(t, np.zeros((1, *x.shape))))
            np.testing.assert_allclose(f, arrays["disc_f"][i], rtol=2e-5, atol=1e-6)
            # the tables are float32; sub-VP's G has the square root of a float32 1/N in it
            np.testing.assert_allclose(
                np.full(len(x), G), arrays["disc_G_f64"][i], rtol=2e-5 if name != "subvp" else 1e-7
            )
    if name != "subvp":
        index = solvers.discretization.table_index(jnp.asarray(arrays["t"], jnp.float32), 1000)
        np.testing.assert_array_equal(index, arrays["disc_index"])


def test_tables(load_fixture):
    index = jnp.arange(1000)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            solvers.DDPM(1000).beta(index), load_fixture("A_sde/vp")["discrete_betas"], rtol=2e-7
        )
        np.testing.assert_allclose(
            solvers.SMLD(1000).sigma(index), load_fixture("A_sde/ve")["discrete_sigmas"], rtol=1e-6
        )
    for n in (30, 1000, 4001):
        exact = jnp.asarray(np.arange(n) / (n - 1), jnp.float32)
        np.testing.assert_array_equal(solvers.discretization.table_index(exact, n), np.arange(n))
