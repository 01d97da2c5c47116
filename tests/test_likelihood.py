"""Likelihoods against the float64 truth of the fixtures, and against closed forms."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.likelihood import FixedProbes, Hutchinson
from sdelab.sampling import Joint

PROCESSES = {"vp": sdelab.VP(), "ve": sdelab.VE(), "subvp": sdelab.SubVP()}
KEY = jax.random.key(0)


def mixture_of(arrays):
    return sdelab.exact.GaussianMixture(*(jnp.asarray(arrays[f"gmm_{part}"]) for part in ("means", "covs", "weights")))


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.slow
def test_flow_likelihood_with_the_prior_and_with_the_exact_end(load_fixture, name, size):
    """`enc_ll` with the SDE's prior; the exact log p at t_min, point by point, with the exact density at t_max."""
    arrays, sde = load_fixture(f"F_analytic/gmm{size}_{name}"), PROCESSES[name]
    with jax.enable_x64(True):
        mixture = mixture_of(arrays)
        flow = sdelab.ProbabilityFlow(sde, mixture.score(sde))
        x = jnp.asarray(arrays["enc_x0"])
        tight = dict(rtol=1e-9, atol=1e-9, solver=diffrax.Dopri8(), max_steps=50_000)
        value, info = sdelab.likelihood.log_prob_with_info(flow, x, **tight)
        np.testing.assert_allclose(value, arrays["enc_ll"], atol=1e-6)
        np.testing.assert_allclose(info.latent, arrays["enc_z"], rtol=1e-6, atol=1e-6)
        exact = sdelab.log_prob(flow, x, terminal=mixture.diffused(sde, sde.t_max).log_prob, **tight)
        np.testing.assert_allclose(exact, arrays["enc_logp_eps_exact"], atol=1e-6)


def interpolation_schedule():
    return sdelab.FromSchedule(alpha=lambda t: jnp.exp(-3.0 * t**2), sigma=lambda t: jnp.sqrt(-jnp.expm1(-6.0 * t**2)))


EVERY = [sdelab.VPCosine, sdelab.VEExact, sdelab.EDM, sdelab.RectifiedFlow, interpolation_schedule]


@pytest.mark.parametrize("process", EVERY)
@pytest.mark.slow
def test_every_process_has_the_exact_density(process):
    """log p at t_min of a mixture to 1e-4 nats a dimension, with the exact density at t_max."""
    with jax.enable_x64(True):
        sde = process()
        mixture = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.09, 0.16]))
        x = mixture.diffused(sde, sde.t_min).sample(KEY, 8)
        flow = sdelab.ProbabilityFlow(sde, mixture.score(sde))
        value = sdelab.log_prob(
            flow, x, terminal=mixture.diffused(sde, sde.t_max).log_prob, rtol=1e-7, atol=1e-7, max_steps=20_000
        )
        np.testing.assert_allclose(value, mixture.diffused(sde, sde.t_min).log_prob(x), atol=2e-4)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
@pytest.mark.parametrize("target", ["gauss", "gmm"])
@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.slow
def test_score_sde_bits_per_dim(load_fixture, name, target, kind):
    """With the recorded probes: the truth for those probes, the reference's runs at both of its tolerances, and ours."""
    arrays, sde = load_fixture(f"E_likelihood/{name}"), PROCESSES[name]
    offset = {"vp": 7.0, "subvp": 7.0, "ve": 8.0}[name]
    with jax.enable_x64(True):
        if target == "gauss":
            mean = jnp.asarray(arrays["gauss_mean"]).reshape(2, 2, 2)
            score = sdelab.exact.Gaussian(mean, jnp.asarray(arrays["gauss_cov"])).score(sde)
        else:
            means = jnp.asarray(arrays["gmm_means"]).reshape(-1, 2, 2, 2)
            covariances, weights = jnp.asarray(arrays["gmm_covs"]), jnp.asarray(arrays["gmm_weights"])
            score = sdelab.exact.GaussianMixture(means, covariances, weights).score(sde)
        flow, x = sdelab.ProbabilityFlow(sde, score), jnp.asarray(arrays[f"{target}/data"], jnp.float64)
        probes = FixedProbes(jnp.asarray(arrays[f"hutch_{kind}"], jnp.float64)[None])

        def bits(tolerance):
            arguments = dict(rtol=tolerance, atol=tolerance, solver=diffrax.Dopri8())
            value = sdelab.log_prob(flow, x, grid=[1.0, 1e-5], divergence=probes, max_steps=50_000, **arguments)
            return -np.asarray(value) / (8 * np.log(2.0)) + offset

        exact, tight, default = bits(1e-9), bits(1e-7), bits(1e-5)
    truth, theirs = arrays[f"{target}/truth/bpd_{kind}"], f"{target}/{kind}"
    for value, tolerance in ((exact, 1e-6), (tight, 1e-6), (default, 5e-5)):
        np.testing.assert_allclose(value, truth, atol=tolerance)
    np.testing.assert_allclose(tight, arrays[f"{theirs}/tight/bpd"], atol=1e-5)
    np.testing.assert_allclose(default, arrays[f"{theirs}/default/bpd"], atol=1e-3)


def gaussian_flow(d, std=0.5):
    sde = sdelab.VP()
    return sde, sdelab.ProbabilityFlow(sde, sdelab.exact.Gaussian(jnp.zeros(d), jnp.asarray(std**2)).score(sde))


def test_one_evaluation_for_score_and_divergence():
    """The count of evaluations is that of the solver's stages, and an instrumented score agrees."""
    calls = []
    sde, flow = gaussian_flow(2)

    def score(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return flow.score(x, t)

    _, info = sdelab.likelihood.log_prob_with_info(
        sdelab.ProbabilityFlow(sde, score), jnp.ones((1, 2)), divergence=Hutchinson(), key=KEY
    )
    jax.effects_barrier()
    assert int(info.evaluations[0]) == len(calls)


@pytest.mark.slow
def test_error_control_per_sample_or_jointly():
    """Alone, a sample takes the same steps in any batch; jointly all share theirs; both are right to the tolerance."""
    sde, mixture = sdelab.VP(), sdelab.exact.GaussianMixture(jnp.array([[1.0], [-0.8]]), jnp.array([0.01, 0.16]))
    flow, x = sdelab.ProbabilityFlow(sde, mixture.score(sde)), jnp.array([[1.0], [0.1], [-2.0]])
    exact = mixture.diffused(sde, sde.t_min).log_prob(x)
    arguments = dict(terminal=mixture.diffused(sde, sde.t_max).log_prob, rtol=1e-5, atol=1e-5)
    alone, info = sdelab.likelihood.log_prob_with_info(flow, x, **arguments)
    joint, joint_info = sdelab.likelihood.log_prob_with_info(flow, x, error_control=Joint(), **arguments)
    some, some_info = sdelab.likelihood.log_prob_with_info(flow, x[:2], **arguments)
    np.testing.assert_array_equal(some_info.evaluations, info.evaluations[:2])
    np.testing.assert_allclose(some, alone[:2], rtol=1e-5)
    assert len(np.unique(info.evaluations)) > 1
    assert len(np.unique(joint_info.evaluations)) == 1
    np.testing.assert_allclose(alone, exact, atol=2e-4)
    np.testing.assert_allclose(joint, exact, atol=2e-4)


@pytest.mark.slow
def test_encode_and_sample_are_inverse():
    with jax.enable_x64(True):
        mixture = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.09, 0.16]))
        for sde in (sdelab.VP(), sdelab.VE(), sdelab.EDM()):
            flow = sdelab.ProbabilityFlow(sde, mixture.score(sde))
            x = mixture.diffused(sde, sde.t_min).sample(KEY, 6)
            z = sdelab.encode(flow, x, rtol=1e-8, atol=1e-8, max_steps=20_000)
            back = sdelab.sample(None, flow, z, solver=diffrax.Tsit5(), rtol=1e-8, atol=1e-8, max_steps=20_000)
            np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("unhooked")
def test_errors_of_arguments():
    _, flow = gaussian_flow(2)
    x = jnp.ones((2, 2))
    for call in (sdelab.log_prob, sdelab.encode):
        with pytest.raises(TypeError, match="must be a ProbabilityFlow"):
            call(sdelab.ReverseSDE(flow.sde, flow.score), x)
        with pytest.raises(TypeError, match="must be a ProbabilityFlow"):
            call(sdelab.VP(), x)
        with pytest.raises(TypeError, match="diffrax's ODE solvers"):
            call(flow, x, solver=sdelab.solvers.Heun(), grid=[1.0, 0.1])
        with pytest.raises(ValueError, match="leading axis must be the batch"):
            call(flow.given(jnp.zeros(3)), x)
        with pytest.raises(ValueError, match=r"grid ends at t = 0\.0, where sigma = 0"):
            call(flow, x, grid=[1.0, 0.5, 0.0])
    with pytest.raises(TypeError, match="divergence = 'exact'"):
        sdelab.log_prob(flow, x, divergence="exact")
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        sdelab.log_prob(flow, x, divergence=Hutchinson(), key=0)
    with pytest.raises(ValueError, match=r"grid starts at t = 0\.1"):
        sdelab.log_prob(flow, x, grid=[0.1, 1e-3])
    with pytest.raises(ValueError, match="below 1e-6"):
        sdelab.encode(flow, np.ones((2, 2)), rtol=1e-9)
    with pytest.raises(TypeError, match=r"PerSample\(\) or Joint\(\)"):
        sdelab.log_prob(flow, x, error_control="joint")
    with pytest.raises(ValueError, match="BacksolveAdjoint"):
        sdelab.log_prob(flow, x, grid=[1.0, 0.5, 1e-3], adjoint=diffrax.BacksolveAdjoint())
    np.testing.assert_allclose(sdelab.log_prob(flow, [[1.0, 1.0]])[0], sdelab.log_prob(flow, x)[0], rtol=1e-5)


def test_errors():
    _, flow = gaussian_flow(2)
    x = jnp.ones((2, 2))
    with pytest.raises(ValueError, match="key = None"):
        sdelab.log_prob(flow, x, divergence=Hutchinson())
    with pytest.raises(RuntimeError, match="max_steps = 2"):
        sdelab.log_prob(flow, x, max_steps=2)
    with pytest.raises(TypeError, match="stochastic solver"):
        sdelab.log_prob(flow, x, solver=diffrax.ShARK())
