"""Likelihoods against the float64 truth of the fixtures, and against closed forms."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.likelihood import ExactTrace, FixedProbes, GaussianHutchinson, Hutchinson

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


@pytest.mark.parametrize("process", ["VPCosine", "VEExact", "EDM", "RectifiedFlow"])
@pytest.mark.slow
def test_every_process_has_the_exact_density(process):
    """log p at t_min of a mixture to 1e-4 nats a dimension, with the exact density at t_max."""
    sde = getattr(sdelab, process)()
    with jax.enable_x64(True):
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
    """With the recorded probes: the truth for those probes to 1e-6, the reference's runs to its own tolerance."""
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
        flow = sdelab.ProbabilityFlow(sde, score)
        arguments = dict(
            grid=[1.0, 1e-5],
            rtol=1e-8,
            atol=1e-8,
            solver=diffrax.Dopri8(),
            max_steps=50_000,
            divergence=FixedProbes(jnp.asarray(arrays[f"hutch_{kind}"], jnp.float64)[None]),
        )
        value = sdelab.log_prob(flow, jnp.asarray(arrays[f"{target}/data"], jnp.float64), **arguments)
    bits = -np.asarray(value) / (8 * np.log(2.0)) + offset
    np.testing.assert_allclose(bits, arrays[f"{target}/truth/bpd_{kind}"], atol=1e-6)
    np.testing.assert_allclose(bits, arrays[f"{target}/{kind}/tight/bpd"], atol=1e-5)
    np.testing.assert_allclose(bits, arrays[f"{target}/{kind}/default/bpd"], atol=1e-3)


def gaussian_flow(d, std=0.5):
    sde = sdelab.VP()
    return sde, sdelab.ProbabilityFlow(sde, sdelab.exact.Gaussian(jnp.zeros(d), jnp.asarray(std**2)).score(sde))


def test_the_trace_does_not_depend_on_its_chunks():
    _, flow = gaussian_flow(5)
    x = jax.random.normal(KEY, (3, 5))
    whole = sdelab.log_prob(flow, x, divergence=ExactTrace(chunk=64))
    np.testing.assert_allclose(sdelab.log_prob(flow, x, divergence=ExactTrace(chunk=2)), whole, rtol=1e-5)


@pytest.mark.parametrize("divergence", [Hutchinson(count=64), GaussianHutchinson(count=256)])
def test_random_traces_are_unbiased_and_know_their_error(divergence):
    sde = sdelab.VP()
    mixture = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.09, 0.16]))
    flow = sdelab.ProbabilityFlow(sde, mixture.score(sde))
    x = mixture.sample(jax.random.key(4), 16)
    exact = sdelab.log_prob(flow, x)
    value, info = sdelab.likelihood.log_prob_with_info(flow, x, divergence=divergence, key=KEY)
    assert np.all(np.abs(np.asarray(value - exact)) <= 4.5 * np.asarray(info.standard_error) + 1e-3)


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
def test_encode_and_sample_are_inverse():
    with jax.enable_x64(True):
        mixture = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.09, 0.16]))
        for sde in (sdelab.VP(), sdelab.VE(), sdelab.EDM()):
            flow = sdelab.ProbabilityFlow(sde, mixture.score(sde))
            x = mixture.diffused(sde, sde.t_min).sample(KEY, 6)
            z = sdelab.encode(flow, x, rtol=1e-8, atol=1e-8, max_steps=20_000)
            back = sdelab.sample(None, flow, z, solver=diffrax.Tsit5(), rtol=1e-8, atol=1e-8, max_steps=20_000)
            np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bits_per_dim_of_uniform_grey_levels():
    """Against the exact integral: for one dimension, -E log2 of the density at dequantised points, plus log2(L/2)."""
    sde, flow = gaussian_flow(1, std=0.5)
    grey = np.arange(17)[:, None]
    result = sdelab.bits_per_dim(KEY, flow, grey, levels=17, t_min=1e-3, draws=400, batch_size=5)
    std = np.sqrt(float(sde.alpha(1e-3)) ** 2 * 0.25 + float(sde.sigma(1e-3)) ** 2)
    u = (np.arange(4000) + 0.5) / 4000
    x = -1 + 2 * (grey + u) / 17
    nats = np.mean(0.5 * (x / std) ** 2 + 0.5 * np.log(2 * np.pi * std**2), axis=1)
    np.testing.assert_allclose(result.per_image, nats / np.log(2) + np.log2(17 / 2), atol=0.03)
    np.testing.assert_allclose(result.standard_error, np.std(result.per_image, ddof=1) / np.sqrt(17), rtol=1e-6)


@pytest.mark.slow
def test_no_image_is_dropped_and_the_batch_does_not_matter():
    _, flow = gaussian_flow(3)
    grey = np.random.default_rng(0).integers(0, 17, (7, 3))
    small = sdelab.bits_per_dim(KEY, flow, grey, levels=17, batch_size=3)
    large = sdelab.bits_per_dim(KEY, flow, grey, levels=17, batch_size=100)
    assert small.per_image.shape == (7,)
    np.testing.assert_allclose(small.per_image, large.per_image, rtol=1e-5)


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
    with pytest.raises(TypeError, match="divergence = 'exact'"):
        sdelab.log_prob(flow, x, divergence="exact")
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        sdelab.log_prob(flow, x, divergence=Hutchinson(), key=0)
    with pytest.raises(ValueError, match=r"grid starts at t = 0\.1"):
        sdelab.log_prob(flow, x, grid=[0.1, 1e-3])
    with pytest.raises(ValueError, match="below 1e-6"):
        sdelab.encode(flow, np.ones((2, 2)), rtol=1e-9)
    np.testing.assert_allclose(sdelab.log_prob(flow, [[1.0, 1.0]])[0], sdelab.log_prob(flow, x)[0], rtol=1e-5)


def test_errors():
    _, flow = gaussian_flow(2)
    x = jnp.ones((2, 2))
    with pytest.raises(ValueError, match="key = None"):
        sdelab.log_prob(flow, x, divergence=Hutchinson())
    with pytest.raises(RuntimeError, match="max_steps = 2"):
        sdelab.log_prob(flow, x, max_steps=2)
    with pytest.raises(ValueError, match=r"integers in \[0, 16\]"):
        sdelab.bits_per_dim(KEY, flow, np.array([[17, 0]]), levels=17)
    with pytest.raises(TypeError, match="stochastic solver"):
        sdelab.log_prob(flow, x, solver=diffrax.ShARK())
