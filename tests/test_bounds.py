"""The variational bound against quadrature, exact densities and the prior's divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import ndtri

import sdelab
from sdelab import ReverseSDE
from sdelab.bounds import NoResidual, Reconstruction, UniformInTime, variational_bound

KEY = jax.random.key(0)
DATA_STD, MODEL_STD = 0.5, 0.7
TEST_PROCESSES = {
    "VP": sdelab.VP(beta_max=4.0),  # still signal at t_max: the prior's term counts
    "VPCosine": sdelab.VPCosine(t_max=0.8),
    "VE": sdelab.VE(sigma_max=2.0),
    "VEExact": sdelab.VEExact(sigma_max=2.0),
    "SubVP": sdelab.SubVP(beta_max=4.0),
    "EDM": sdelab.EDM(t_max=3.0),
    "RectifiedFlow": sdelab.RectifiedFlow(t_max=0.8),
    "FromSchedule": sdelab.FromSchedule(
        alpha=lambda t: jnp.exp(-(t**2)), sigma=lambda t: jnp.sqrt(-jnp.expm1(-2.0 * t**2))
    ),
}


class LinearScore(sdelab.score.AbstractScore):
    """The score of data N(c, MODEL_STD^2), c the condition: right or wrong, it is that of a Gaussian."""

    sde: sdelab.AbstractAffineSDE
    std: float = MODEL_STD

    def __call__(self, x, t, condition=None):
        alpha, sigma = (f(t).reshape(-1, 1) for f in (self.sde.alpha, self.sde.sigma))
        return -(x - alpha * condition) / (alpha**2 * self.std**2 + sigma**2)

    def denoise(self, x, t, condition=None):
        return self.sde.denoise(x, t, self(x, t, condition))


def host(sde, times):
    """`alpha`, `sigma`, `log_snr` in float64."""
    with jax.enable_x64(True):
        values = [np.asarray(f(jnp.asarray(times, jnp.float64))) for f in (sde.alpha, sde.sigma, sde.log_snr)]
    return values


def by_quadrature(sde, x0, centre, std=MODEL_STD):
    """Entropy, prior and diffusion term at points x0 of one dimension, all expectations in closed form but that over t."""
    times = sde.t_min + (sde.t_max - sde.t_min) * np.linspace(0, 1, 20001) ** 3
    alpha, sigma, log_snr = (value[:, None] for value in host(sde, times))
    variance = alpha**2 * std**2 + sigma**2
    error = (sigma * alpha * (x0 - centre) / variance) ** 2 + (alpha**2 * std**2 / variance) ** 2
    diffusion = 0.5 * np.trapezoid(error, -log_snr[:, 0], axis=0)
    entropy = 0.5 * np.log(2 * np.pi * np.e * sigma[0] ** 2)
    prior_std = float(jnp.asarray(sde.prior_std()))
    ratio = (sigma[-1] / prior_std) ** 2
    return entropy, 0.5 * (ratio - 1 - np.log(ratio) + (alpha[-1] * x0 / prior_std) ** 2), diffusion


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n != "VP" else ()) for n in TEST_PROCESSES])
def test_each_term_is_the_integral_that_it_stands_for(name):
    """Per sample, with the condition of each; the standard error is that of the scatter, at most a little larger."""
    sde, repeats = TEST_PROCESSES[name], 1000
    points, centres = np.array([0.3, -1.4]), np.array([0.2, -0.5])
    x0, condition = (jnp.asarray(np.repeat(v, repeats)[:, None], jnp.float32) for v in (points, centres))
    process = ReverseSDE(sde, LinearScore(sde), condition=condition)
    bound = variational_bound(KEY, process, x0, times=32, residual=Reconstruction())
    entropy, prior, diffusion = by_quadrature(sde, points, centres)
    np.testing.assert_allclose(bound.entropy, entropy[0], rtol=1e-4)
    np.testing.assert_allclose(bound.prior.reshape(2, -1), prior[:, None] + np.zeros(repeats), rtol=1e-4, atol=1e-5)
    assert_mean(bound.diffusion.reshape(2, -1), diffusion)
    assert_mean(bound.residual.reshape(2, -1), residual_at(sde, points, centres))
    np.testing.assert_allclose(
        bound.nats, bound.entropy + bound.prior + bound.diffusion + bound.residual, rtol=1e-5, atol=1e-5
    )
    claimed = np.sqrt(np.mean(np.asarray(bound.standard_error).reshape(2, -1) ** 2, axis=1))
    seen = np.std(np.asarray(bound.nats).reshape(2, -1), axis=1)
    assert np.all(claimed > 0.9 * seen)
    assert np.all(claimed < 1.2 * seen)


def residual_at(sde, x0, centre):
    r"""$\tfrac12 E\|\epsilon_\theta - \epsilon\|^2 - \tfrac12 - \log\alpha$ in closed form."""
    alpha, sigma, _ = host(sde, sde.t_min)
    variance = alpha**2 * MODEL_STD**2 + sigma**2
    error = (sigma * alpha * (x0 - centre) / variance) ** 2 + (alpha**2 * MODEL_STD**2 / variance) ** 2
    return 0.5 * error - 0.5 - np.log(alpha)


def assert_mean(values, expected, sigmas=4.5):
    values = np.asarray(values, np.float64)
    error = values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])
    np.testing.assert_array_less(np.abs(values.mean(axis=-1) - expected), sigmas * error + 1e-5)


def normal_log(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - 0.5 * np.log(2 * np.pi * std**2)


PARTS = [(0.25, 2.0, 0.2), (0.75, 0.5, 0.4)]  # weight, mean, standard deviation


def mixture_log(sde, t, x):
    alpha, sigma, _ = host(sde, t)
    return np.logaddexp(*(np.log(w) + normal_log(x, alpha * m, np.hypot(alpha * s, sigma)) for w, m, s in PARTS))


@pytest.mark.parametrize(
    "name", [pytest.param("VP", marks=pytest.mark.slow), "VE", pytest.param("RectifiedFlow", marks=pytest.mark.slow)]
)
def test_with_the_exact_score_it_is_tight_up_to_the_prior(name):
    """mean bound - entropy of p_{t_min} = KL(p_{t_max} || prior) for a mixture, all but the bound by quadrature."""
    sde, n = TEST_PROCESSES[name], 40_000
    weights, means, stds = np.array(PARTS).T
    mixture = sdelab.exact.GaussianMixture(means[:, None], stds**2, weights)
    counts = (n * weights).astype(int)
    x0 = np.concatenate([m + s * ndtri((np.arange(k) + 0.5) / k) for m, s, k in zip(means, stds, counts, strict=True)])
    bound = variational_bound(KEY, ReverseSDE(sde, mixture.score(sde)), jnp.asarray(x0[:, None], jnp.float32), times=64)
    x = np.linspace(-12.0, 12.0, 40001)
    start, end = mixture_log(sde, sde.t_min, x), mixture_log(sde, sde.t_max, x)
    entropy = -np.trapezoid(np.exp(start) * start, x)
    divergence = np.trapezoid(np.exp(end) * (end - normal_log(x, 0.0, float(jnp.asarray(sde.prior_std())))), x)
    error = np.sqrt(np.sum(np.asarray(bound.standard_error, np.float64) ** 2)) / n
    assert divergence > 3 * error  # so that a missing prior term would be seen
    assert abs(np.mean(np.asarray(bound.nats, np.float64)) - entropy - divergence) < 3.5 * error


@pytest.mark.parametrize("name", ["VP", "EDM"])
def test_it_bounds_the_density_of_the_reverse_sde(name):
    """A wrong linear score makes the reverse SDE a linear one: its density at t_min is a Gaussian, by its moments' ODE."""
    sde, centre = TEST_PROCESSES[name], 0.2
    points = 0.1 + DATA_STD * np.polynomial.hermite_e.hermegauss(20)[0]
    weights = np.polynomial.hermite_e.hermegauss(20)[1] / np.sqrt(2 * np.pi)
    bound = np.sum(weights * sum(by_quadrature(sde, points, centre)))
    mean, variance = linear_reverse_sde(sde, centre)
    alpha, sigma, _ = host(sde, sde.t_min)
    at_t_min = np.sum(weights * ((alpha * points - mean) ** 2 + sigma**2)) / (2 * variance) + 0.5 * np.log(
        2 * np.pi * variance
    )
    assert at_t_min < bound < at_t_min + 0.2


def linear_reverse_sde(sde, centre):
    """Mean and variance at t_min of dx = [f - g^2 s] dt + g dw backwards from the prior, with s of `LinearScore`."""
    with jax.enable_x64(True):
        coefficients = jax.jit(
            lambda t: (sde.drift(jnp.ones((1, 1)), t)[0, 0], sde.diffusion(t) ** 2, sde.alpha(t), sde.sigma(t))
        )

        def rate(t, moments):
            f, g2, alpha, sigma = (float(value) for value in coefficients(t))
            pull = g2 / (alpha**2 * MODEL_STD**2 + sigma**2)
            return [f * moments[0] + pull * (moments[0] - alpha * centre), 2 * (f + pull) * moments[1] - g2]

        start = [0.0, float(jnp.asarray(sde.prior_std())) ** 2]
        return solve_ivp(rate, (sde.t_max, sde.t_min), start, rtol=1e-8, atol=1e-10).y[:, -1]


@pytest.mark.slow
def test_importance_sampled_times_have_the_same_mean_and_less_scatter():
    sde = sdelab.VP(t_min=1e-4)
    x0, condition = jnp.full((4000, 1), 0.4), jnp.full((4000, 1), 0.2)
    process = ReverseSDE(sde, LinearScore(sde), condition=condition)
    by_log_snr, by_time = (
        variational_bound(KEY, process, x0, times=16, **kwargs) for kwargs in ({}, {"proposal": UniformInTime()})
    )
    expected = by_quadrature(sde, np.array([0.4]), 0.2)[2]
    for bound in (by_log_snr, by_time):
        assert_mean(bound.diffusion, expected)
    assert 1.5 * np.std(by_log_snr.diffusion) < np.std(by_time.diffusion)


@pytest.mark.slow
def test_a_sample_has_its_own_draws_and_images_their_shape():
    """Sample 3 alone and in a batch; an image's bound is that of its pixels as a vector."""
    sde = sdelab.VP()
    score = sdelab.exact.Gaussian(jnp.zeros((2, 3, 1)), 0.25).score(sde)
    x0, keys = 0.5 * jax.random.normal(KEY, (5, 2, 3, 1)), jax.random.split(KEY, 5)
    whole = variational_bound(keys, ReverseSDE(sde, score), x0, times=8)
    alone = variational_bound(keys[3:4], ReverseSDE(sde, score), x0[3:4], times=8)
    np.testing.assert_allclose(alone.nats, whole.nats[3:4], rtol=1e-5)
    flat = ReverseSDE(sde, sdelab.exact.Gaussian(jnp.zeros(6), 0.25).score(sde))
    np.testing.assert_allclose(variational_bound(keys, flat, x0.reshape(5, 6), times=8).nats, whole.nats, rtol=1e-5)


@pytest.mark.usefixtures("unhooked")
def test_errors():
    sde = sdelab.VP()
    process, x0 = ReverseSDE(sde, sdelab.exact.Gaussian(jnp.zeros(2), 0.25).score(sde)), jnp.ones((3, 2))
    with pytest.raises(TypeError, match=r"accepted: ReverseSDE\(sde, score\)"):
        variational_bound(KEY, sdelab.ProbabilityFlow(sde, process.score), x0)
    with pytest.raises(ValueError, match=r"stochasticity = 0\.5"):
        variational_bound(KEY, ReverseSDE(sde, process.score, stochasticity=0.5), x0)
    for times in (3, 0, 2.0):
        with pytest.raises(ValueError, match="even integer >= 2"):
            variational_bound(KEY, process, x0, times=times)
    with pytest.raises(ValueError, match="sigma = 0 there"):
        variational_bound(KEY, process, x0, t_min=0.0)
    with pytest.raises(ValueError, match=r"t_min = 2\.0 must be less than t_max"):
        variational_bound(KEY, process, x0, t_min=2.0)
    with pytest.raises(TypeError, match="proposal = 'uniform'"):
        variational_bound(KEY, process, x0, proposal="uniform")
    with pytest.raises(TypeError, match="AbstractResidual"):
        variational_bound(KEY, process, x0, residual=True)
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        variational_bound(0, process, x0)
    same, nothing = NoResidual()(None, process, x0, 0.1)
    assert same is x0
    assert not np.any(nothing)
