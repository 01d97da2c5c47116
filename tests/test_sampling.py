"""What `sample` promises whatever the solver: invariances, one compilation, trajectories, there and back."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, known_numbers, solvers
from sdelab.testing.one_of import OneOf
from tests.solvers.cases import PROCESSES, STOCHASTIC

SDE = sdelab.VP()
MIXTURE = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.09, 0.16]))
SCORE = MIXTURE.score(SDE)
KEY = jax.random.key(7)
GRID = grids.uniform(SDE, 20)


COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


def gaussian_score(x, t):
    """Of N(0, 0.25 I): cheap to compile."""
    return -x / (SDE.alpha(t) ** 2 * 0.25 + SDE.sigma(t) ** 2)


def reverse(score=SCORE, **fields):
    return sdelab.ReverseSDE(SDE, score, **fields)


def flow(score=SCORE):
    return sdelab.ProbabilityFlow(SDE, score)


@pytest.mark.parametrize("solver", ["Ancestral", "PC-Langevin", "diffrax.ShARK"])
@pytest.mark.slow
def test_a_sample_is_the_same_in_any_batch(solver):
    arguments = dict(solver=STOCHASTIC[solver], grid=GRID)
    batch = sdelab.sample(KEY, reverse(), (64, 2), **arguments)
    alone = sdelab.sample(solvers.sample_keys(KEY, 1, first=17), reverse(), (1, 2), **arguments)
    np.testing.assert_allclose(alone[0], batch[17], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "solver", "tolerance"),
    # a Brownian path is not smooth: where rounding moves a step by 1e-7, the path moves by the square root of that
    [(sdelab.ProbabilityFlow, diffrax.Bosh3(), 1e-5), (sdelab.ReverseSDE, diffrax.SRA1(), 1e-2)],
)
@pytest.mark.slow
def test_adaptive_steps_per_sample_do_not_see_the_batch(kind, solver, tolerance):
    arguments = dict(solver=solver, rtol=1e-2, atol=1e-2)
    batch, info = sdelab.sample_with_info(KEY, kind(SDE, gaussian_score), (20, 2), **arguments)
    key = solvers.sample_keys(KEY, 1, first=17)
    alone, own = sdelab.sample_with_info(key, kind(SDE, gaussian_score), (1, 2), **arguments)
    np.testing.assert_allclose(alone[0], batch[17], rtol=tolerance, atol=tolerance)
    if kind is sdelab.ProbabilityFlow:
        assert int(own.evaluations[0]) == int(info.evaluations[17])


class UsersOwn(sdelab.AbstractAffineSDE):
    """As a user writes one: plain fields, the interval included."""

    rate: float = 2.0
    t_min: float = 1e-3
    t_max: float = 3.0

    def drift(self, x, t):
        return -0.5 * self.rate * x

    def diffusion(self, t):
        return jnp.sqrt(self.rate) * jnp.ones_like(t)

    def alpha(self, t):
        return jnp.exp(-0.5 * self.rate * t)

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(-self.rate * t))

    def prior_std(self):
        return 1.0


def test_a_users_own_process_samples():
    """An Ornstein-Uhlenbeck process, through jit as an argument and through a solver: N(0, 0.25) comes back."""
    sde = UsersOwn()
    mean, std = jax.jit(lambda sde, x: sde.marginal(x, 0.5))(sde, jnp.ones((2, 1)))
    np.testing.assert_allclose(mean, np.exp(-0.5), rtol=1e-6)
    np.testing.assert_allclose(std**2, -np.expm1(-1.0), rtol=1e-6)
    score = sdelab.exact.Gaussian(jnp.zeros(1), jnp.asarray(0.25)).score(sde)
    process = sdelab.ReverseSDE(sde, score)
    x = sdelab.sample(KEY, process, (8192, 1), solver=solvers.Ancestral(), grid=grids.log_snr(sde, 100))
    np.testing.assert_allclose(np.var(np.asarray(x)), 0.25 + 0.75 * -np.expm1(-2e-3), rtol=4 * np.sqrt(2 / 8192) + 0.02)


@pytest.mark.as_users
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_noise_is_bit_equal_alone_and_in_a_batch(dtype):
    with jax.enable_x64(True):
        keys = solvers.sample_keys(KEY, 64)
        batch = solvers.KeyedNoise(keys).draw(jnp.asarray(5), 2, jax.ShapeDtypeStruct((64, 3, 5), dtype))
        like = jax.ShapeDtypeStruct((1, 3, 5), dtype)
        alone = solvers.KeyedNoise(solvers.sample_keys(KEY, 1, first=17)).draw(jnp.asarray(5), 2, like)
        np.testing.assert_array_equal(alone[:, 0], batch[:, 17])
        np.testing.assert_array_equal(
            solvers.KeyedNoise(keys).only(jnp.asarray(17)).draw(jnp.asarray(5), 2, like), alone
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_noise_is_standard_normal_and_independent(dtype):
    """Kolmogorov-Smirnov against the normal law, and no correlation between words, intervals and samples."""
    from scipy import stats

    with jax.enable_x64(True):
        noise = solvers.KeyedNoise(solvers.sample_keys(KEY, 4000))
        like = jax.ShapeDtypeStruct((4000, 5), dtype)
        z = np.concatenate(
            [np.asarray(noise.draw(jnp.asarray(i), 2, like)).transpose(1, 0, 2).reshape(4000, -1) for i in range(3)], 1
        )
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(z.T) - np.eye(z.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(len(z))
    neighbours = np.corrcoef(z[:-1].ravel(), z[1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(z.size)


def test_the_start_and_the_path_are_independent():
    start = sdelab.sample(
        KEY, sdelab.ProbabilityFlow(SDE, lambda x, t: 0.0 * x), (4000, 2), solver=diffrax.Euler(), grid=[1.0, 0.5]
    )
    path = solvers.KeyedNoise(jax.vmap(jax.random.fold_in, (0, None))(solvers.sample_keys(KEY, 4000), 1))
    z = path.draw(jnp.asarray(0), 1, jax.ShapeDtypeStruct((4000, 2), jnp.float32))[0]
    assert abs(np.corrcoef(np.asarray(start).ravel(), np.asarray(z).ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(
    "arguments", [dict(solver=solvers.Ancestral(), grid=GRID), dict(solver=diffrax.Bosh3(), rtol=1e-3)]
)
def test_a_second_call_compiles_nothing(arguments):
    """Nor do other times, another rate, another signal-to-noise ratio or other tolerances."""

    def score(x, t):
        return gaussian_score(x, t)

    kind = sdelab.ReverseSDE if "grid" in arguments else sdelab.ProbabilityFlow
    other = jax.random.key(1)  # a program of its own
    known_numbers._known_once.cache_clear()  # another test may have asked, and its programs are dropped
    before = len(COMPILED)
    sdelab.sample(KEY, kind(SDE, score), (4, 2), **arguments)
    first = len(COMPILED)
    assert first > before
    sdelab.sample(other, kind(SDE, score), (4, 2), **arguments)
    sdelab.sample(KEY, kind(sdelab.VP(beta_max=19.0), score), (4, 2), **arguments)
    if "grid" in arguments:
        for grid in (grids.quadratic(SDE, 20), grids.uniform(SDE, 20, t_min=0.01)):
            sdelab.sample(KEY, kind(SDE, score), (4, 2), solver=arguments["solver"], grid=grid)
    else:
        sdelab.sample(KEY, kind(SDE, score), (4, 2), solver=arguments["solver"], rtol=1e-2)
    assert len(COMPILED) == first


def test_other_numbers_of_a_solver_do_not_compile():
    grid = grids.uniform(SDE, 10)
    for snr in (0.1, 0.2, 0.3):
        solver = solvers.PredictorCorrector(corrector=solvers.Langevin(snr=snr))
        sdelab.sample(KEY, reverse(gaussian_score), (4, 2), solver=solver, grid=grid)
        if snr == 0.1:
            first = len(COMPILED)
    assert len(COMPILED) == first


@pytest.mark.as_users
def test_trajectory_passes_through_the_grid_and_ends_in_the_sample():
    process, arguments = reverse(gaussian_score), dict(solver=solvers.Ancestral())
    times, states = sdelab.trajectory(KEY, process, (5, 2), grid=GRID, **arguments)
    np.testing.assert_allclose(times, GRID, rtol=1e-6)
    np.testing.assert_array_equal(states[-1], sdelab.sample(KEY, process, (5, 2), grid=GRID, **arguments))
    half = sdelab.sample(KEY, process, (5, 2), grid=GRID[:11], **arguments)
    np.testing.assert_allclose(states[10], half, rtol=1e-6)


def test_adaptive_trajectory_is_the_flow():
    """Read off the interpolant: for a Gaussian, the state is scaled with the marginal's standard deviation."""
    gaussian = sdelab.exact.Gaussian(jnp.zeros(2), jnp.asarray(0.25))
    x_T = jnp.array([[1.0, -2.0], [0.3, 0.1]])
    process = sdelab.ProbabilityFlow(SDE, gaussian.score(SDE))
    times, states = sdelab.trajectory(None, process, x_T, solver=diffrax.Tsit5(), rtol=1e-6, atol=1e-6, grid=GRID)
    std = jnp.sqrt(SDE.alpha(times) ** 2 * 0.25 + SDE.sigma(times) ** 2)
    np.testing.assert_allclose(states, x_T[None] * (std / std[0])[:, None, None], rtol=2e-3, atol=1e-4)


FLOWS = {"vp": sdelab.VP(), "subvp": sdelab.SubVP(), "ve": sdelab.VE()}


@pytest.mark.parametrize("name", ["vp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("subvp", "ve"))])
def test_float64_flow_against_the_truth(load_fixture, name):
    """The probability flow of the fixtures' mixtures, computed there by DOP853 at 1e-12."""
    arrays = load_fixture(f"F_analytic/gmm2_{name}")
    with jax.enable_x64(True):
        mixture = sdelab.exact.GaussianMixture(
            *(jnp.asarray(arrays[f"gmm_{part}"]) for part in ("means", "covs", "weights"))
        )
        process = sdelab.ProbabilityFlow(FLOWS[name], mixture.score(FLOWS[name]))
        x_T = jnp.asarray(arrays["ode_x_T"])
        x = sdelab.sample(None, process, x_T, solver=diffrax.Dopri8(), rtol=1e-10, atol=1e-10, max_steps=100_000)
    np.testing.assert_allclose(x, arrays["ode_x_eps"], atol=1e-7)


def check_there_and_back(sde, **arguments):
    """In float32, on a mixture whose flow parts between its modes."""
    x0 = jnp.array([[1.0, 0.5], [-0.8, -0.3], [0.15, 0.1], [1.4, -0.6], [-1.2, 0.4], [0.0, 0.2]])
    process = sdelab.ProbabilityFlow(sde, MIXTURE.score(sde))
    back = sdelab.sampling.decode(process, sdelab.encode(process, x0, **arguments), **arguments)
    np.testing.assert_allclose(back, x0, atol=1e-4 * float(jnp.sqrt(jnp.mean(x0**2))))


def test_decode_is_the_inverse_of_encode():
    """At the default tolerances, over the process's own interval."""
    check_there_and_back(SDE)


@pytest.mark.parametrize("name", [name for name in PROCESSES if name != "VP"])
@pytest.mark.slow
def test_decode_is_the_inverse_of_encode_on_every_process(name):
    """At the same tolerance; as one of all processes, so that one program there and one back serve them."""
    sde = PROCESSES[name]
    one = OneOf(tuple(PROCESSES.values()), list(PROCESSES).index(name))
    check_there_and_back(one, grid=[sde.t_max, sde.t_min], rtol=1e-6)


class OnlyDriftAndDiffusion(sdelab.AbstractSDE):
    """VP, of which nothing is told that needs its kernel."""

    t_min: float = 1e-3
    t_max: float = 1.0

    def drift(self, x, t):
        return SDE.drift(x, t)

    def diffusion(self, t):
        return SDE.diffusion(t)

    def prior_sample(self, key, shape, dtype=None):
        return jax.random.normal(key, shape, dtype)

    def prior_log_prob(self, x):
        return SDE.prior_log_prob(x)


def test_a_process_without_a_kernel_there_and_back():
    """The flow of N(0, 0.25 I) scales with the marginal's standard deviation: encoded, decoded, and on the way."""
    process = sdelab.ProbabilityFlow(OnlyDriftAndDiffusion(), gaussian_score)
    x0 = jnp.array([[0.4, -0.7], [0.1, 1.2]])

    def std(t):
        return jnp.sqrt(SDE.alpha(t) ** 2 * 0.25 + SDE.sigma(t) ** 2)

    z = sdelab.encode(process, x0, solver=diffrax.Bosh3())
    np.testing.assert_allclose(z, x0 * std(1.0) / std(1e-3), rtol=1e-4)
    np.testing.assert_allclose(sdelab.sampling.decode(process, z, solver=diffrax.Bosh3()), x0, rtol=1e-4)
    times, states = sdelab.trajectory(
        None, process, z, solver=diffrax.Bosh3(), grid=grids.uniform(SDE, 100, t_min=0.01)
    )
    np.testing.assert_allclose(states, x0[None] * (std(times) / std(1e-3))[:, None, None], rtol=1e-3)


@pytest.mark.slow
def test_finish():
    """Tweedie is the exact denoiser at the end; the noiseless predictor is the last step without its noise."""
    grid = grids.uniform(SDE, 20, t_min=0.05)
    process = reverse(gaussian_score)
    x = sdelab.sample(KEY, process, (5, 2), solver=solvers.EulerMaruyama(), grid=grid)
    tweedie = sdelab.sample(KEY, process, (5, 2), solver=solvers.EulerMaruyama(), grid=grid, finish=solvers.Tweedie())
    alpha, sigma = SDE.alpha(0.05), SDE.sigma(0.05)
    exact = 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * x  # the posterior mean of N(0, 0.25 I)
    np.testing.assert_allclose(tweedie, exact, rtol=1e-5)
    clean = sdelab.sample(
        KEY, process, (5, 2), solver=solvers.EulerMaruyama(), grid=grid, finish=solvers.NoiselessPredictor()
    )
    before = sdelab.sample(KEY, process, (5, 2), solver=solvers.EulerMaruyama(), grid=grid[:-1])
    by_hand = before - (grid[-2] - grid[-1]) * process.drift(before, float(grid[-2]))
    np.testing.assert_allclose(clean, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_conditions_are_per_sample_and_reach_every_solver():
    def score(x, t, label):
        target = jnp.where(label == 0, -3.0, 3.0)[:, None]
        return SDE.score_from_denoised(x, jnp.broadcast_to(target, x.shape), t)

    labels = jnp.array([0, 1, 1, 0])
    wanted = np.where(np.asarray(labels) == 0, -3.0, 3.0)
    for process, arguments in (
        (sdelab.ReverseSDE(SDE, score), dict(solver=solvers.Ancestral(), grid=GRID)),
        (sdelab.ProbabilityFlow(SDE, score), dict(solver=diffrax.Heun(), rtol=1e-2)),
        (sdelab.ProbabilityFlow(SDE, score), dict(solver=diffrax.ImplicitEuler(), grid=grids.quadratic(SDE, 60))),
    ):
        x = sdelab.sample(KEY, process.given(labels), (4, 2), **arguments)
        np.testing.assert_allclose(np.asarray(x).mean(1), wanted, atol=0.1)


def test_solvers_are_pytrees():
    solver = solvers.PredictorCorrector(corrector=solvers.Langevin(snr=0.1))
    leaves, structure = jax.tree.flatten(solver)
    assert eqx.tree_equal(jax.tree.unflatten(structure, leaves), solver)
