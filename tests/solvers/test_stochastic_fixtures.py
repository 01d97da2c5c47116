"""Every recorded run that consumes noise: EDM and its ablation, k-diffusion, azula, diffusers, in float64.

All but three are reproduced with the recorded noise. The three that are not (k-diffusion's `dpmpp_sde`, twice, and
`dpmpp_3m_sde`) are restated in NumPy, so that it is their rule that is judged, and shown to be wrong; ours are held
against exact moments in test_stochastic.py.
"""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import solvers
from sdelab.solvers.ancestral_step import AncestralStep
from sdelab.solvers.base import AbstractReverseSolver, Step
from sdelab.solvers.churn import Churn
from sdelab.solvers.ddim import DDIM, StochasticDDIM
from sdelab.solvers.dpm_solver import DPMSolver2
from sdelab.solvers.dpm_solver_plus_plus import DPMSolverPlusPlus2S
from sdelab.solvers.exponential_euler import ExponentialEuler, FrozenNoise
from sdelab.solvers.newton import VaryingCoefficients
from sdelab.solvers.sde_dpm_solver import SDEDPMSolverPlusPlus1, SDEDPMSolverPlusPlus2M
from sdelab.testing.order import walk

QUICK = {"churn18", "dpmpp_2m_sde"}
ANGLE = sdelab.FromSchedule(jnp.cos, jnp.sin, t_max=1.57)  # alpha^2 + sigma^2 = 1, sigma / alpha = tan(t)


def some(runs):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in runs]


def mixture(arrays):
    return sdelab.exact.GaussianMixture(
        *(jnp.asarray(arrays[f"gmm_{name}"], jnp.float64) for name in ("means", "covs", "weights"))
    )


def run(solver, sde, arrays, x_T, times, noise, stochasticity=1.0):
    """The solver's own step, from `x_T` over the times, with one recorded noise a step; those beyond the last are 0."""
    noise = np.asarray(noise)[: len(times) - 1]
    values = np.zeros((len(times) - 1, 1, *x_T.shape))
    values[: len(noise), 0] = noise
    process = sdelab.ReverseSDE(sde, mixture(arrays).score(sde), jnp.asarray(stochasticity))
    solver.check(process)
    x = walk(solver, process, jnp.asarray(x_T, jnp.float64), np.asarray(times), jnp.asarray(values))
    return np.asarray(x)


def check(ours, arrays, name, rtol=1e-8):
    final = arrays[f"{name}/final"]
    np.testing.assert_allclose(ours, final, rtol=rtol, atol=rtol * np.abs(final).max())


def edm_sigmas(n, low=0.002, high=80.0, rho=7.0):
    i = np.arange(n)
    return np.append((high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho, 0.0)


EDM_RUNS = {
    "churn18": (18, Churn(solvers.Heun(), 40.0, 0.05, 50.0, 1.003)),
    "churn12_capped": (12, Churn(solvers.Heun(), 80.0)),
}


@pytest.mark.parametrize("size", ["gmm2", pytest.param("gmm8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", some(EDM_RUNS))
def test_edm(load_fixture, name, size):
    """Published code raises the noise above sigma_max too: the process must reach that far. The mixture in eight dimensions
    is for this one: all rules are elementwise."""
    arrays, (n, solver) = load_fixture(f"D_samplers/edm_{size}"), EDM_RUNS[name]
    with jax.enable_x64(True):
        sigmas = edm_sigmas(n)
        x = run(solver, sdelab.EDM(t_max=120.0), arrays, arrays["latents"] * sigmas[0], sigmas, arrays["noise"])
    check(x, arrays, name, 1e-9)


@pytest.mark.slow
def test_edm_does_not_churn_beyond_the_process(load_fixture):
    """With t_max = sigma_max the first step has no noise, whatever it is; the reference has some there."""
    arrays = load_fixture("D_samplers/edm_gmm2")
    with jax.enable_x64(True):
        sigmas, solver = edm_sigmas(12), EDM_RUNS["churn12_capped"][1]
        x_T = arrays["latents"] * sigmas[0]
        first = [run(solver, sdelab.EDM(), arrays, x_T, sigmas[:2], k * arrays["noise"]) for k in (0.0, 1.0)]
        np.testing.assert_array_equal(*first)
        assert np.abs(first[0] - arrays["churn12_capped/traj"][1]).max() > 1.0


class HeunInTime(AbstractReverseSolver):
    """Heun's rule in t and x, as the ablation of EDM has it, and Euler's where sigma(t1) = 0: what a user could add."""

    kind = "deterministic"

    def advance(self, process, x, interval, memory):
        h = interval.t1 - interval.t0
        slope = process.drift(x, interval.t0)
        euler = x + h * slope
        trapezoid = x + 0.5 * h * (slope + process.drift(euler, jnp.maximum(interval.t1, 1e-6)))
        x = jnp.where(interval.t1 > 0.0, trapezoid, euler)
        return Step(x, x)

    def evaluations(self, steps, to_data):
        return 2 * steps - to_data

    def draws(self):
        return 0


@pytest.mark.slow
def test_churn_of_another_process_and_another_solver(load_fixture):
    """The ablation's "vp_churn": scaled by alpha, and around a rule that is none of ours."""
    arrays = load_fixture("D_samplers/ablation_gmm2")
    with jax.enable_x64(True):
        sde, times = sdelab.VP(), np.append(np.linspace(1.0, 1e-3, 16), 0.0)
        solver = Churn(HeunInTime(), 20.0, 0.01, 1.0, 1.007)
        x_T = arrays["latents"] * np.asarray(sde.sigma(1.0))
        x = run(solver, sde, arrays, x_T, times, arrays["noise"])
    check(x, arrays, "vp_churn", 1e-9)


KDIFFUSION_RUNS = {
    "euler_churn": (Churn(DDIM(), 10.0, 0.05, 20.0, 1.003), 1.0),
    "heun_churn": (Churn(solvers.Heun(), 10.0), 1.0),
    "euler_ancestral": (solvers.Ancestral(), 1.0),
    "dpm_2_ancestral": (AncestralStep(DPMSolver2()), 0.6),
    "dpmpp_2s_ancestral": (AncestralStep(DPMSolverPlusPlus2S()), 1.0),
    "dpmpp_2m_sde": (SDEDPMSolverPlusPlus2M(), 1.0),
    "dpmpp_2m_sde_heun": (SDEDPMSolverPlusPlus2M(VaryingCoefficients()), math.sqrt(0.7)),  # its eta is c^2
}


@pytest.mark.parametrize("name", some(KDIFFUSION_RUNS))
def test_k_diffusion(load_fixture, name):
    arrays, (solver, level) = load_fixture("D_samplers/kdiffusion_gmm2"), KDIFFUSION_RUNS[name]
    sigmas = arrays["sigmas/karras12"]
    with jax.enable_x64(True):
        noise = arrays["noise"][: int(arrays[f"{name}/n_noise"])]
        x = run(solver, sdelab.EDM(t_max=60.0), arrays, arrays["x_unit"] * sigmas[0], sigmas, noise, level)
    check(x, arrays, name)


class Renoise(solvers.AbstractCorrector):
    """A share of the predicted noise is replaced by new noise, as azula's corrector does; a user's own."""

    share: float

    def correct(self, process, x, t, noise):
        predicted = process.sde.sigma(t) * process.noise(x, t)
        x_mean = x - (1.0 - math.sqrt(1.0 - self.share)) * predicted
        return x_mean + math.sqrt(self.share) * process.sde.sigma(t) * noise[0], x_mean

    def count(self):
        return 1


def azula_vp():
    alpha = lambda t: jnp.exp(math.log(1e-3) * t**2)  # noqa: E731
    return sdelab.FromSchedule(alpha, lambda t: jnp.sqrt(1.0 - alpha(t) ** 2 + 1e-6))


AZULA_RUNS = {
    "ddim_eta0.5": (StochasticDDIM(), math.sqrt(0.5)),  # its eta multiplies the variance
    "ddim_eta1": (StochasticDDIM(), 1.0),
    "ddpm": (solvers.Ancestral(), 1.0),
    "ito": (ExponentialEuler(FrozenNoise()), 0.7),
    "pc": (solvers.PredictorCorrector(SDEDPMSolverPlusPlus1(), Renoise(0.05)), 0.0),
}


@pytest.mark.parametrize("name", some(AZULA_RUNS))
def test_azula(load_fixture, name):
    arrays, (solver, level) = load_fixture("D_samplers/azula_gmm2"), AZULA_RUNS[name]
    with jax.enable_x64(True):
        sde = sdelab.VE(sigma_min=0.01, sigma_max=40.0) if name == "ddim_eta1" else azula_vp()
        times = np.linspace(1.0, 0.0, 17)
        np.testing.assert_allclose(sde.sigma(jnp.asarray(times)), arrays[f"{name}/sigma"], rtol=1e-9)
        if isinstance(solver, solvers.PredictorCorrector):
            noise = np.stack([arrays["noise"][:16], np.zeros_like(arrays["noise"][:16])], 1)  # the predictor is DDIM
            process = sdelab.ReverseSDE(sde, mixture(arrays).score(sde), jnp.asarray(level))
            x_T = jnp.asarray(arrays["x_unit"] * arrays[f"{name}/sigma"][0], jnp.float64)
            x = walk(solver, process, x_T, times, jnp.asarray(noise, jnp.float64))
        else:
            x_T = arrays["x_unit"] * arrays[f"{name}/sigma"][0]
            x = run(solver, sde, arrays, x_T, times, arrays["noise"], level)
    check(x, arrays, name)


DIFFUSERS_RUNS = {
    "ddim_eta1_25": (solvers.Ancestral(), 1.0),
    "ddim_trailing20_eta0.5": (StochasticDDIM(), 0.5),
    "ddpm_small_20": (solvers.Ancestral(), 1.0),
    "ddpm_large_20": (solvers.Ancestral(variance=solvers.ForwardVariance()), 1.0),
}


@pytest.mark.parametrize("name", some(DIFFUSERS_RUNS))
def test_diffusers(load_fixture, name):
    """The table as angles arctan(sigma / alpha), from the recorded levels down to sigma = 0; the last step of DDPM has no noise."""
    arrays, (solver, level) = load_fixture("D_samplers/diffusers_gmm2"), DIFFUSERS_RUNS[name]
    with jax.enable_x64(True):
        alpha, sigma = arrays[f"{name}/model_alpha_sigma"].T
        times = np.append(np.arctan2(sigma, alpha), 0.0)
        noise = arrays["noise"][: len(times) - 2]
        x = run(solver, ANGLE, arrays, arrays["x_T"], times, noise, level)
    check(x, arrays, name, 1e-5)


# Methods that are not shipped. Both are in the letters of k-diffusion: alpha = 1, lambda = -log sigma, D the denoiser.


def ancestral(sigma0, sigma1, eta):
    up = min(sigma1, eta * math.sqrt(sigma1**2 * (sigma0**2 - sigma1**2) / sigma0**2))
    return math.sqrt(sigma1**2 - up**2), up


def dpmpp_sde(D, x, sigmas, noise, *, eta=1.0, r=0.5, s_noise=1.0):
    """k-diffusion's `sample_dpmpp_sde`: a second-order step whose stage and whose end have noises of their own."""
    noise = iter(noise)
    for sigma0, sigma1 in itertools.pairwise(sigmas):
        D0 = D(x, sigma0)
        if sigma1 == 0.0:
            return D0
        middle = sigma0 ** (1 - r) * sigma1**r
        down, up = ancestral(sigma0, middle, eta)
        D1 = D(down / sigma0 * x + (1 - down / sigma0) * D0 + s_noise * up * next(noise), middle)
        down, up = ancestral(sigma0, sigma1, eta)
        mean = down / sigma0 * x + (1 - down / sigma0) * ((1 - 1 / (2 * r)) * D0 + 1 / (2 * r) * D1)
        x = mean + s_noise * up * next(noise)
    return x


def dpmpp_3m_sde(D, x, sigmas, noise, *, eta=1.0, second=1.0):
    """k-diffusion's `sample_dpmpp_3m_sde`; `second` = 2 mends the term of the second difference."""
    past, lengths = [], []
    for i, (sigma0, sigma1) in enumerate(itertools.pairwise(sigmas)):
        D0 = D(x, sigma0)
        if sigma1 == 0.0:
            return D0
        h = math.log(sigma0 / sigma1)
        k = (1 + eta) * h
        K1 = math.expm1(-k) / k + 1
        x = math.exp(-k) * x - math.expm1(-k) * D0
        if past:
            r0 = lengths[0] / h
            slope = (D0 - past[0]) / r0
            if len(past) > 1:
                r1 = lengths[1] / h
                bend = (slope - (past[0] - past[1]) / r1) / (r0 + r1)
                x = x + K1 * r0 * bend + second * (0.5 - K1 / k) * bend
            x = x + K1 * slope
        x = x + sigma1 * math.sqrt(-math.expm1(-2 * eta * h)) * noise[i]
        past, lengths = [D0, *past][:2], [h, *lengths][:2]
    return x


def exact_denoiser(arrays):
    sde = sdelab.EDM()
    denoise = eqx.filter_jit(mixture(arrays).score(sde).denoise)
    return lambda x, sigma: np.asarray(denoise(jnp.asarray(x), jnp.asarray(sigma)))


NOT_SHIPPED = {
    "dpmpp_sde": (dpmpp_sde, {}),
    "dpmpp_sde_eta0.5_r0.4": (dpmpp_sde, dict(eta=0.5, r=0.4, s_noise=1.01)),
    "dpmpp_3m_sde": (dpmpp_3m_sde, {}),
}


@pytest.mark.parametrize("name", NOT_SHIPPED)
def test_what_is_not_shipped_is_understood(load_fixture, name):
    arrays, (method, settings) = load_fixture("D_samplers/kdiffusion_gmm2"), NOT_SHIPPED[name]
    sigmas = arrays["sigmas/karras12"]
    with jax.enable_x64(True):
        noise = arrays["noise"].astype(np.float64)
        x = method(exact_denoiser(arrays), arrays["x_unit"] * sigmas[0], sigmas, noise, **settings)
    check(x, arrays, name)


def test_dpmpp_sde_is_not_a_second_order_method_of_the_reverse_sde():
    r"""Two stages, order 1: the noise of its stage is not that of its step, so that they are uncorrelated where the
    reverse SDE has a covariance of order h^2. Ours, with one evaluation a step, is of order 2 (test_stochastic.py)."""
    variance, errors = 0.3, []
    for n in (32, 64, 128):
        sigmas = np.geomspace(5.0, 0.05, n + 1)
        D = lambda x, sigma: variance / (variance + sigma**2) * x  # noqa: E731
        v = variance + sigmas[0] ** 2
        for pair in itertools.pairwise(sigmas):
            slope = dpmpp_sde(D, 1.0, pair, [0.0, 0.0])
            spread = [dpmpp_sde(D, 0.0, pair, z) for z in ([1.0, 0.0], [0.0, 1.0])]
            v = slope**2 * v + sum(np.square(spread))
        errors.append(abs(v - variance - sigmas[-1] ** 2))
    assert 0.9 < -np.polyfit(np.log([32, 64, 128]), np.log(errors), 1)[0] < 1.1


def test_dpmpp_3m_sde_lacks_a_factor_two():
    r"""Where D is a parabola in lambda, three predictions say everything, and the step is exact; theirs is not."""
    sigmas, eta = np.exp(-np.array([0.0, 0.3, 0.7, 1.2])), 1.0
    D = lambda x, sigma: np.log(sigma) ** 2  # noqa: E731
    k, silence = 1 + eta, np.zeros(3)

    def antiderivative(u):  # of k e^{k u} u^2
        return math.exp(k * u) * (u**2 - 2 * u / k + 2 / k**2)

    def last_step(second):
        x = dpmpp_3m_sde(D, 0.4, sigmas[:3], silence, eta=eta)
        return dpmpp_3m_sde(D, 0.4, sigmas, silence, eta=eta, second=second), x

    for second, right in ((1.0, False), (2.0, True)):
        end, x = last_step(second)
        exact = math.exp(-k * 0.5) * x + math.exp(-k * 1.2) * (antiderivative(1.2) - antiderivative(0.7))
        assert (abs(end - exact) < 1e-12) == right
