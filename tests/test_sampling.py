"""What `sample` promises whatever the solver: invariances, counts, one compilation, gradients, errors."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from tests.solvers.cases import ADAPTIVE, DETERMINISTIC, STOCHASTIC

SDE = sdelab.VP()
MIXTURE = sdelab.exact.GaussianMixture(jnp.array([[1.0, 0.5], [-0.8, -0.3]]), jnp.array([0.09, 0.16]))
SCORE = MIXTURE.score(SDE)
KEY = jax.random.key(7)
GRID = grids.uniform(SDE, 20)


COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


def reverse(score=SCORE, **fields):
    return sdelab.ReverseSDE(SDE, score, **fields)


def flow(score=SCORE):
    return sdelab.ProbabilityFlow(SDE, score)


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.slow
def test_a_sample_is_the_same_in_any_batch(solver):
    arguments = dict(solver=STOCHASTIC[solver], grid=GRID)
    batch = sdelab.sample(KEY, reverse(), (64, 2), **arguments)
    alone = sdelab.sample(solvers.sample_keys(KEY, 1, first=17), reverse(), (1, 2), **arguments)
    np.testing.assert_allclose(alone[0], batch[17], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "solver", "tolerance"),
    # a Brownian path is not smooth: where rounding moves a step by 1e-7, the path moves by the square root of that
    [(sdelab.ProbabilityFlow, diffrax.Tsit5(), 1e-5), (sdelab.ReverseSDE, diffrax.ShARK(), 1e-2)],
)
@pytest.mark.slow
def test_adaptive_steps_per_sample_do_not_see_the_batch(kind, solver, tolerance):
    arguments = dict(solver=solver, rtol=1e-2, atol=1e-2)
    batch, info = sdelab.sample_with_info(KEY, kind(SDE, SCORE), (20, 2), **arguments)
    key = solvers.sample_keys(KEY, 1, first=17)
    alone, own = sdelab.sample_with_info(key, kind(SDE, SCORE), (1, 2), **arguments)
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


def counting(score):
    """A score that counts its calls at run time."""
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return score(x, t)

    return counted, calls


def assert_counted(process_type, solver, sde=SDE, **arguments):
    exact = MIXTURE.score(sde)
    counted, calls = counting(lambda x, t: exact(x, t))
    _, info = sdelab.sample_with_info(KEY, process_type(sde, counted), (1, 2), solver=solver, **arguments)
    jax.effects_barrier()
    assert int(info.evaluations[0]) == len(calls)


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.parametrize("end", [1e-3, 0.0])
@pytest.mark.slow
def test_evaluations_of_stochastic_solvers(solver, end):
    if (end == 0.0 and "Langevin" in solver and "first" not in solver) or (end == 0.0 and "diffrax" in solver):
        pytest.skip("the score is not evaluated at t = 0 by the others")
    grid = grids.uniform(SDE, 7, t_min=end)
    assert_counted(sdelab.ReverseSDE, STOCHASTIC[solver], grid=grid, finish=solvers.Tweedie())


@pytest.mark.parametrize("solver", DETERMINISTIC)
@pytest.mark.slow
def test_evaluations_of_deterministic_solvers(solver):
    assert_counted(sdelab.ProbabilityFlow, DETERMINISTIC[solver], grid=grids.uniform(SDE, 7))
    if solver == "Heun":
        assert_counted(sdelab.ProbabilityFlow, DETERMINISTIC[solver], grid=grids.uniform(SDE, 7, t_min=0.0))


@pytest.mark.parametrize("solver", ["Ancestral", "PC-Langevin-predictor-first"])
def test_evaluations_where_noise_is_left_at_time_zero(solver):
    """VE as published has sigma(0) = sigma_min: its last step is like any other, and Tweedie has work to do."""
    sde = sdelab.VE()
    grid = grids.uniform(sde, 5, t_min=0.0)
    assert_counted(sdelab.ReverseSDE, STOCHASTIC[solver], sde, grid=grid, finish=solvers.Tweedie())
    assert_counted(sdelab.ProbabilityFlow, solvers.Heun(), sde, grid=grid)
    process = sdelab.ReverseSDE(sde, MIXTURE.score(sde))
    x = sdelab.sample(KEY, process, (3, 2), solver=STOCHASTIC[solver], grid=grid)
    done = sdelab.sample(KEY, process, (3, 2), solver=STOCHASTIC[solver], grid=grid, finish=solvers.Tweedie())
    np.testing.assert_allclose(done, process.denoise(x, 0.0), rtol=1e-5)


@pytest.mark.parametrize(
    "solver", [diffrax.HalfSolver(diffrax.Tsit5()), diffrax.HalfSolver(diffrax.Euler()), diffrax.ReversibleHeun()]
)
@pytest.mark.slow
def test_evaluations_of_other_diffrax_solvers(solver):
    assert_counted(sdelab.ProbabilityFlow, solver, grid=grids.uniform(SDE, 7))
    assert_counted(sdelab.ProbabilityFlow, solver, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("solver", ADAPTIVE)
@pytest.mark.slow
def test_evaluations_of_adaptive_solvers(solver):
    assert_counted(sdelab.ProbabilityFlow, ADAPTIVE[solver], rtol=1e-3, atol=1e-3)
    assert_counted(
        sdelab.ProbabilityFlow, ADAPTIVE[solver], rtol=1e-3, atol=1e-3, error_control=sdelab.sampling.Joint()
    )


@pytest.mark.parametrize("solver", ["diffrax.ShARK", "diffrax.SRA1", "diffrax.SPaRK"])
@pytest.mark.slow
def test_evaluations_of_adaptive_sde_solvers(solver):
    assert_counted(sdelab.ReverseSDE, STOCHASTIC[solver], rtol=1e-1, atol=1e-1)


def test_implicit_solvers_do_not_guess_their_cost():
    _, info = sdelab.sample_with_info(KEY, flow(), (2, 2), solver=diffrax.Kvaerno3(), rtol=1e-3, atol=1e-3)
    assert info.evaluations is None


@pytest.mark.parametrize(
    "arguments", [dict(solver=solvers.Ancestral(), grid=GRID), dict(solver=diffrax.Tsit5(), rtol=1e-3)]
)
def test_a_second_call_compiles_nothing(arguments):
    """Nor do other times, another rate, another signal-to-noise ratio or other tolerances."""

    def score(x, t):
        return SCORE(x, t)

    kind = sdelab.ReverseSDE if "grid" in arguments else sdelab.ProbabilityFlow
    before = len(COMPILED)
    sdelab.sample(KEY, kind(SDE, score), (4, 2), **arguments)
    first = len(COMPILED)
    assert first > before
    sdelab.sample(jax.random.key(1), kind(SDE, score), (4, 2), **arguments)
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
        sdelab.sample(KEY, reverse(), (4, 2), solver=solver, grid=grid)
        if snr == 0.1:
            first = len(COMPILED)
    assert len(COMPILED) == first


def test_trajectory_passes_through_the_grid_and_ends_in_the_sample():
    times, states = sdelab.trajectory(KEY, reverse(), (5, 2), solver=solvers.Ancestral(), grid=GRID)
    np.testing.assert_allclose(times, GRID, rtol=1e-6)
    np.testing.assert_array_equal(
        states[-1], sdelab.sample(KEY, reverse(), (5, 2), solver=solvers.Ancestral(), grid=GRID)
    )
    half = sdelab.sample(KEY, reverse(), (5, 2), solver=solvers.Ancestral(), grid=GRID[:11])
    np.testing.assert_allclose(states[10], half, rtol=1e-6)


def test_adaptive_trajectory_is_the_flow():
    """Read off the interpolant: for a Gaussian, the state is scaled with the marginal's standard deviation."""
    gaussian = sdelab.exact.Gaussian(jnp.zeros(2), jnp.asarray(0.25))
    x_T = jnp.array([[1.0, -2.0], [0.3, 0.1]])
    process = sdelab.ProbabilityFlow(SDE, gaussian.score(SDE))
    times, states = sdelab.trajectory(None, process, x_T, solver=diffrax.Tsit5(), rtol=1e-6, atol=1e-6, grid=GRID)
    std = jnp.sqrt(SDE.alpha(times) ** 2 * 0.25 + SDE.sigma(times) ** 2)
    np.testing.assert_allclose(states, x_T[None] * (std / std[0])[:, None, None], rtol=2e-3, atol=1e-4)


def test_float64_flow_against_the_truth(load_fixture):
    """The probability flow of the fixtures' mixtures, computed there by DOP853 at 1e-12."""
    for name, sde in (("vp", sdelab.VP()), ("subvp", sdelab.SubVP()), ("ve", sdelab.VE())):
        arrays = load_fixture(f"F_analytic/gmm2_{name}")
        with jax.enable_x64(True):
            mixture = sdelab.exact.GaussianMixture(
                *(jnp.asarray(arrays[f"gmm_{part}"]) for part in ("means", "covs", "weights"))
            )
            process = sdelab.ProbabilityFlow(sde, mixture.score(sde))
            x_T = jnp.asarray(arrays["ode_x_T"])
            x = sdelab.sample(None, process, x_T, solver=diffrax.Dopri8(), rtol=1e-10, atol=1e-10, max_steps=100_000)
        np.testing.assert_allclose(x, arrays["ode_x_eps"], atol=1e-7)


@pytest.mark.slow
def test_finish():
    """Tweedie is the exact denoiser at the end; the noiseless predictor is the last step without its noise."""
    grid = grids.uniform(SDE, 20, t_min=0.05)
    x = sdelab.sample(KEY, reverse(), (5, 2), solver=solvers.EulerMaruyama(), grid=grid)
    tweedie = sdelab.sample(KEY, reverse(), (5, 2), solver=solvers.EulerMaruyama(), grid=grid, finish=solvers.Tweedie())
    np.testing.assert_allclose(tweedie, SCORE.denoise(x, 0.05), rtol=1e-5)
    clean = sdelab.sample(
        KEY, reverse(), (5, 2), solver=solvers.EulerMaruyama(), grid=grid, finish=solvers.NoiselessPredictor()
    )
    before = sdelab.sample(KEY, reverse(), (5, 2), solver=solvers.EulerMaruyama(), grid=grid[:-1])
    by_hand = before - (grid[-2] - grid[-1]) * reverse().drift(before, float(grid[-2]))
    np.testing.assert_allclose(clean, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_a_sample():
    """With respect to the SDE's rate, the start and the score's parameter, against central differences in float64."""
    with jax.enable_x64(True):
        mixture = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), MIXTURE)
        start, grid = jnp.array([[0.3, -0.2], [1.0, 0.4]]), grids.uniform(SDE, 12, t_min=0.05)

        def loss(beta_max, scale, start):
            sde = sdelab.VP(beta_max=beta_max)
            process = sdelab.ReverseSDE(sde, lambda x, t: scale * mixture.score(sde)(x, t))
            x = sdelab.sample(KEY, process, start, solver=solvers.Ancestral(), grid=grid)
            return jnp.sum(x**3)

        for solver_arguments in ((20.0, 0.9),):
            gradients = jax.grad(loss, (0, 1, 2))(*(jnp.asarray(a) for a in solver_arguments), start)
            for i, h in ((0, 1e-4), (1, 1e-6)):
                arguments = [jnp.asarray(a) for a in solver_arguments]
                up, down = list(arguments), list(arguments)
                up[i], down[i] = up[i] + h, down[i] - h
                difference = (loss(*up, start) - loss(*down, start)) / (2 * h)
                np.testing.assert_allclose(gradients[i], difference, rtol=1e-5)
            bump = jnp.zeros_like(start).at[1, 0].set(1e-6)
            difference = (loss(20.0, 0.9, start + bump) - loss(20.0, 0.9, start - bump)) / 2e-6
            np.testing.assert_allclose(gradients[2][1, 0], difference, rtol=1e-5)


@pytest.mark.parametrize("solver", [solvers.Ancestral(), solvers.ReverseDiffusion(), solvers.Heun()])
@pytest.mark.parametrize("sde", [sdelab.VP(), sdelab.SubVP(), sdelab.VEExact(sigma_max=5.0)])
@pytest.mark.slow
def test_gradients_by_a_field_on_a_grid_to_time_zero(sde, solver):
    """Nothing is NaN where sigma = 0; against central differences in float64."""
    name = "sigma_max" if isinstance(sde, sdelab.VEExact) else "beta_max"
    with jax.enable_x64(True):
        mixture = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), MIXTURE)
        start = jnp.array([[0.3, -0.2], [1.0, 0.4]])
        kind = sdelab.ReverseSDE if solver.kind == "stochastic" else sdelab.ProbabilityFlow

        def loss(value):
            process = kind(dataclasses.replace(sde, **{name: value}), lambda x, t: mixture.score(sde)(x, t))
            return jnp.sum(sdelab.sample(KEY, process, start, solver=solver, grid=[1.0, 0.5, 0.2, 0.0]) ** 2)

        value = getattr(sde, name)
        difference = (loss(value + 1e-5) - loss(value - 1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(loss)(value), difference, rtol=1e-5)


@pytest.mark.slow
def test_conditions_are_per_sample_and_reach_every_solver():
    def score(x, t, label):
        target = jnp.where(label == 0, -3.0, 3.0)[:, None]
        return SDE.score_from_denoised(x, jnp.broadcast_to(target, x.shape), t)

    labels = jnp.array([0, 1, 1, 0])
    wanted = np.where(np.asarray(labels) == 0, -3.0, 3.0)
    for process, arguments in (
        (sdelab.ReverseSDE(SDE, score), dict(solver=solvers.Ancestral(), grid=GRID)),
        (sdelab.ProbabilityFlow(SDE, score), dict(solver=diffrax.Tsit5(), rtol=1e-3)),
        (sdelab.ProbabilityFlow(SDE, score), dict(solver=diffrax.Kvaerno3(), rtol=1e-3)),
    ):
        x = sdelab.sample(KEY, process.given(labels), (4, 2), **arguments)
        np.testing.assert_allclose(np.asarray(x).mean(1), wanted, atol=0.1)


def test_solvers_are_pytrees():
    solver = solvers.PredictorCorrector(corrector=solvers.Langevin(snr=0.1))
    leaves, structure = jax.tree.flatten(solver)
    assert eqx.tree_equal(jax.tree.unflatten(structure, leaves), solver)
