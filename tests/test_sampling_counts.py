"""The counts that `sample_with_info` reports, each equated with a score that counts its calls while it runs."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.sampling import Joint
from tests.solvers.cases import DETERMINISTIC, STOCHASTIC

SDE = sdelab.VP()
KEY = jax.random.key(7)


def gaussian_score(sde):
    """Of N(0, 0.25 I): cheap to compile."""
    return lambda x, t: -x / (sde.alpha(t) ** 2 * 0.25 + sde.sigma(t) ** 2)


def bumpy(x, t):
    """Not smooth enough in time for any step size: steps are rejected."""
    return gaussian_score(SDE)(x, t) * (1.0 + 4.0 * jnp.exp(-(((t - 0.6) / 0.03) ** 2)))


class Calls:
    """A score and the times at which it was called."""

    def __init__(self, score):
        self.score, self.times = score, []

    def __call__(self, x, t):
        jax.debug.callback(lambda t: self.times.append(float(t)), t)
        return self.score(x, t)

    def read(self):
        jax.effects_barrier()
        times, self.times[:] = list(self.times), []
        return times


def draw(calls, kind=sdelab.ProbabilityFlow, keys=KEY, shape=(1, 2), sde=SDE, **arguments):
    """The samples; their evaluations have been counted."""
    x, info = sdelab.sample_with_info(keys, kind(sde, calls), shape, **arguments)
    np.testing.assert_array_equal(info.evaluations, len(calls.read()))
    return x


@pytest.mark.parametrize("solver", STOCHASTIC)
@pytest.mark.slow
def test_stochastic_solvers_count_and_see_no_companions(solver):
    """Sample 17 is the same among any others, and the batch as one costs what is said."""
    calls, arguments = Calls(gaussian_score(SDE)), dict(solver=STOCHASTIC[solver], finish=solvers.Tweedie())
    x = [
        draw(calls, sdelab.ReverseSDE, keys, (3, 2), grid=grids.uniform(SDE, 7), **arguments)
        for keys in (solvers.sample_keys(KEY, 3, first=17), solvers.sample_keys(KEY, 3, first=17)[jnp.array([0, 2, 2])])
    ]
    np.testing.assert_allclose(x[0][0], x[1][0], rtol=1e-6)
    assert np.all(np.asarray(x[0][1]) != np.asarray(x[1][1]))
    np.testing.assert_allclose(x[0][2], x[1][2], rtol=1e-6)


# A grid to t = 0, where the score is not evaluated: neither by these solvers nor by Tweedie's finish.
TO_DATA = [name for name in STOCHASTIC if "diffrax" not in name and ("Langevin" not in name or "first" in name)]


@pytest.mark.parametrize("solver", TO_DATA)
@pytest.mark.slow
def test_stochastic_solvers_to_time_zero(solver):
    grid = grids.uniform(SDE, 7, t_min=0.0)
    calls = Calls(gaussian_score(SDE))
    draw(calls, sdelab.ReverseSDE, grid=grid, solver=STOCHASTIC[solver], finish=solvers.Tweedie())


@pytest.mark.parametrize("solver", DETERMINISTIC)
@pytest.mark.slow
def test_deterministic_solvers(solver):
    draw(Calls(gaussian_score(SDE)), solver=DETERMINISTIC[solver], grid=grids.uniform(SDE, 7))
    if solver == "Heun":
        draw(Calls(gaussian_score(SDE)), solver=DETERMINISTIC[solver], grid=grids.uniform(SDE, 7, t_min=0.0))


def test_where_noise_is_left_at_time_zero():
    """VE as published has sigma(0) = sigma_min: its last step is like any other, and Tweedie has work to do."""
    sde = sdelab.VE()
    score, grid = gaussian_score(sde), grids.uniform(sde, 5, t_min=0.0)
    arguments = dict(shape=(2, 2), sde=sde, grid=grid)
    first = STOCHASTIC["PC-Langevin-predictor-first"]
    draw(Calls(score), sdelab.ReverseSDE, solver=first, finish=solvers.Tweedie(), **arguments)
    draw(Calls(score), solver=solvers.Heun(), **arguments)
    done, x = (
        draw(Calls(score), sdelab.ReverseSDE, solver=STOCHASTIC["Ancestral"], finish=finish, **arguments)
        for finish in (solvers.Tweedie(), solvers.NoFinish())
    )
    np.testing.assert_allclose(done, sdelab.ReverseSDE(sde, score).denoise(x, 0.0), rtol=1e-5)


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Dopri8()])
@pytest.mark.slow
def test_joint_adaptive_steps(solver):
    """What a step costs is counted on a grid, for each solver, above; here a step is rejected, for the batch as one."""
    draw(Calls(bumpy), solver=solver, shape=(3, 2), rtol=1e-3, error_control=Joint())


@pytest.mark.parametrize(
    "solver", [diffrax.HalfSolver(diffrax.Bosh3()), diffrax.HalfSolver(diffrax.Euler()), diffrax.ReversibleHeun()]
)
@pytest.mark.slow
def test_other_diffrax_solvers(solver):
    draw(Calls(gaussian_score(SDE)), solver=solver, grid=grids.uniform(SDE, 7))
    draw(Calls(bumpy), solver=solver, rtol=1e-1, error_control=Joint())


@pytest.mark.slow
def test_adaptive_steps_of_an_sde():
    draw(Calls(bumpy), sdelab.ReverseSDE, solver=diffrax.SPaRK(), rtol=1e-1)


# Where in a step the score is called: the first stage of Bosh3 is the last of the step before ("first same as last").
STAGES = {"FSAL": (diffrax.Bosh3(), [0.5, 0.75, 1.0], 1), "not FSAL": (diffrax.Ralston(), [0.0, 2 / 3], 0)}


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.slow
def test_steps_of_each_sample(kind):
    """From the times of the calls one reads off the tries, and which of them were taken: the next starts elsewhere."""
    solver, stages, once = STAGES[kind]
    arguments = dict(solver=solver, rtol=1e-2, atol=1e-2)
    x_T = jnp.array([[0.01, 0.0], [1.0, -1.0], [30.0, 20.0]])
    _, info = sdelab.sample_with_info(None, sdelab.ProbabilityFlow(SDE, bumpy), x_T, **arguments)
    calls = Calls(bumpy)
    for i in range(len(x_T)):
        sdelab.sample(None, sdelab.ProbabilityFlow(SDE, calls), x_T[i : i + 1], **arguments)
        times = np.array(calls.read())
        assert info.evaluations[i] == len(times)
        tries = times[once:].reshape(-1, len(stages))
        h = (tries[:, -1] - tries[:, 0]) / (stages[-1] - stages[0])
        starts = tries[:, 0] - stages[0] * h
        taken = np.abs(np.diff(starts)) > 0.1 * np.abs(h[:-1])
        assert info.accepted[i] == taken.sum() + 1  # the last try arrives
        assert info.rejected[i] == (~taken).sum()
    assert len(set(np.asarray(info.accepted).tolist())) == len(x_T)
    assert np.any(np.asarray(info.rejected) > 0)


def test_implicit_solvers_do_not_guess_their_cost():
    process = sdelab.ProbabilityFlow(SDE, gaussian_score(SDE))

    def info(x_T):
        return sdelab.sample_with_info(None, process, x_T, solver=diffrax.Kvaerno3(), rtol=1e-3)[1]

    traced = jax.eval_shape(info, jnp.ones((2, 2)))
    assert traced.evaluations is None
    assert traced.accepted.shape == (2,)


@pytest.mark.parametrize(("sde", "expected"), [(sdelab.VP(), 1), (sdelab.VE(), 2)])
def test_a_noiseless_step_costs_what_its_predictor_does(sde, expected):
    """To t = 0: where sigma(0) = 0 Heun evaluates once, under VE as published, where it is sigma_min, twice."""
    calls, mixture = [], sdelab.exact.GaussianMixture(jnp.array([[-1.0], [1.0]]), 0.1)
    exact = mixture.score(sde)

    def score(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return exact(x, t)

    finish = solvers.NoiselessStep(solvers.Heun())
    _, info = sdelab.sample_with_info(
        jax.random.key(0),
        sdelab.ProbabilityFlow(sde, score),
        (1, 1),
        solver=solvers.DDIM(),
        grid=grids.uniform(sde, 3),
        finish=finish,
    )
    jax.effects_barrier()
    assert int(info.evaluations[0]) == len(calls) == 3 + expected
