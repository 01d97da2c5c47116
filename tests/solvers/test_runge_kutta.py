"""diffrax's Runge–Kutta methods, with their numbers known beforehand, against diffrax itself."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab.exact import GaussianMixture
from sdelab.solvers import runge_kutta
from sdelab.solvers.diffrax_terms import levy_area, reverse_terms
from sdelab.solvers.noise import GridBrownianPath, StoredNoise
from sdelab.solvers.runge_kutta import FLOW, SDE, FlowRungeKutta, SDERungeKutta, with_known_numbers
from tests.solvers.cases import PROCESSES

METHODS = [(method, "flow", "RectifiedFlow") for method in FLOW] + [(method, "SDE", "RectifiedFlow") for method in SDE]
METHODS += [(diffrax.Dopri8, "flow", "VP"), (diffrax.ShARK, "SDE", "VP"), (diffrax.SlowRK, "SDE", "VE")]
QUICK = diffrax.Euler, diffrax.Tsit5, diffrax.ShARK
METHODS = [
    pytest.param(
        *case, id="-".join([case[0].__name__, *case[1:]]), marks=[] if case[0] in QUICK else [pytest.mark.slow]
    )
    for case in METHODS
]


def score_of(sde):
    mixture = GaussianMixture(jnp.array([[-1.0, 0.0], [1.0, 0.5]]), jnp.array([0.2, 0.3]), jnp.array([0.4, 0.6]))
    return mixture.score(sde)


def flow(sde):
    return sdelab.ProbabilityFlow(sde, score_of(sde))


def by_diffrax(process, method, x_T, grid, noise=None, **arguments):
    """The equation as one would hand it to diffrax."""
    path = None
    if noise is not None:
        like = jax.ShapeDtypeStruct(x_T.shape, x_T.dtype)
        path = GridBrownianPath(noise=noise, times=-jnp.asarray(grid), like=like, levy_area=levy_area(method))
    return diffrax.diffeqsolve(
        reverse_terms(method, process, path),
        method,
        -grid[0],
        -grid[-1],
        None,
        x_T,
        stepsize_controller=diffrax.StepTo(-grid),
        saveat=diffrax.SaveAt(t0=True, steps=True),
        max_steps=len(grid) - 1,
        args=process,
        **arguments,
    ).ys


@pytest.mark.parametrize(("method", "kind", "name"), METHODS)
def test_they_are_diffrax_to_rounding(method, kind, name):
    """In float64; Euler's method, which evaluates at the start of a step only, to the data too."""
    with jax.enable_x64(True):
        sde, noise = PROCESSES[name], None
        grid = sdelab.grids.log_snr(sde, 6, t_min=0.02 * sde.t_max)
        if method in runge_kutta.ONE_STAGE:
            grid = np.append(grid, 0.0)
        x_T, process = sde.prior_sample(jax.random.key(0), (3, 2)), flow(sde)
        if kind == "SDE":
            process = sdelab.ReverseSDE(sde, score_of(sde), stochasticity=0.7)
            draws = 2 if levy_area(method()) is diffrax.SpaceTimeLevyArea else 1
            noise = StoredNoise(jax.random.normal(jax.random.key(1), (len(grid) - 1, draws, *x_T.shape)))
        _, states = sdelab.trajectory(None, process, x_T, solver=method(), grid=grid, noise=noise)
        expected = by_diffrax(process, method(), x_T, grid, noise)
        np.testing.assert_allclose(states, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 10**6])
def test_a_step_in_a_loop_is_the_step_as_it_is_written(limit, monkeypatch):
    """Value and gradient, with respect to a number of the process and to the start; and forwards."""
    grid = np.linspace(1.0, 0.3, 5)
    with jax.enable_x64(True):
        x_T, beta = jnp.array([[0.3, -1.0], [0.5, 0.2]]), 15.0

        def end(beta, x_T, adjoint):
            process = flow(sdelab.VP(beta_max=beta))
            return jnp.sum(sdelab.sample(None, process, x_T, solver=diffrax.Bosh3(), grid=grid, adjoint=adjoint) ** 2)

        def theirs(beta, x_T):
            process = flow(sdelab.VP(beta_max=beta))
            states = by_diffrax(process, diffrax.Bosh3(), x_T, grid, adjoint=diffrax.DirectAdjoint())
            return jnp.sum(states[-1] ** 2)

        value, gradient = jax.value_and_grad(theirs, (0, 1))(beta, x_T)
        monkeypatch.setattr(runge_kutta, "LONGEST", limit)
        jax.clear_caches()
        found = jax.value_and_grad(end, (0, 1))(beta, x_T, diffrax.RecursiveCheckpointAdjoint())
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, (value, gradient))
        _, slope = jax.jvp(lambda b: end(b, x_T, diffrax.ForwardMode()), (beta,), (1.0,))
        np.testing.assert_allclose(slope, gradient[0], rtol=1e-10)
    jax.clear_caches()


def test_a_network_is_compiled_once_a_step():
    """A score of many operations is in the program once, whatever the number of stages; one of few is written out."""

    def copies(depth, solver):
        def score(x, t):
            for _ in range(depth):
                x = jnp.sin(x) + t
            return x

        process = sdelab.ProbabilityFlow(sdelab.VP(), score)
        run = lambda x: sdelab.sample(None, process, x, solver=solver, grid=[1.0, 0.8, 0.5])  # noqa: E731
        program = jax.jit(run).lower(jnp.ones((2, 3))).as_text()
        return program.count("stablehlo.sine") / depth

    assert copies(5, diffrax.Tsit5()) == 6
    assert copies(200, diffrax.Tsit5()) == 1


@pytest.mark.slow
def test_gradients_of_a_loop_with_noise_are_those_of_diffrax():
    """With respect to the stochasticity, a number of the process, the condition and the start; and forwards."""
    grid = np.linspace(1.0, 0.3, 4)
    with jax.enable_x64(True):
        noise = StoredNoise(jax.random.normal(jax.random.key(1), (3, 2, 2, 2)))

        def process(beta, stochasticity, condition):
            score = lambda x, t, c: c[:, None] * jnp.sin(x) - x / (1.0 + t)  # noqa: E731
            return sdelab.ReverseSDE(sdelab.VP(beta_max=beta), score, stochasticity, condition)

        def ours(numbers, adjoint):
            *parts, x_T = numbers
            solve = dict(solver=diffrax.SPaRK(), grid=grid, noise=noise, adjoint=adjoint)
            return jnp.sum(sdelab.sample(None, process(*parts), x_T, **solve) ** 2)

        def theirs(numbers):
            *parts, x_T = numbers
            states = by_diffrax(process(*parts), diffrax.SPaRK(), x_T, grid, noise, adjoint=diffrax.DirectAdjoint())
            return jnp.sum(states[-1] ** 2)

        numbers = (15.0, 0.7, jnp.array([0.2, 0.5]), jnp.array([[0.3, -1.0], [0.5, 0.2]]))
        expected = jax.value_and_grad(theirs)(numbers)
        for adjoint in (diffrax.RecursiveCheckpointAdjoint(), diffrax.DirectAdjoint()):
            found = jax.value_and_grad(ours)(numbers, adjoint)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)
        tangents = jax.tree.map(jnp.ones_like, numbers)
        _, slope = jax.jvp(lambda n: ours(n, diffrax.ForwardMode()), (numbers,), (tangents,))
        np.testing.assert_allclose(slope, sum(jnp.sum(part) for part in expected[1]), rtol=1e-9)


@pytest.mark.slow
def test_gradients_are_those_of_diffrax():
    """With respect to the process, whose numbers are then traced; `BacksolveAdjoint` is still diffrax's, and of an ODE."""
    with jax.enable_x64(True):
        grid, x_T = np.linspace(1.0, 0.5, 9), jnp.array([[0.3, -1.0]])

        def ours(beta_max, adjoint):
            process = flow(sdelab.VP(beta_max=beta_max))
            return jnp.sum(sdelab.sample(None, process, x_T, solver=diffrax.Heun(), grid=grid, adjoint=adjoint) ** 2)

        def theirs(beta_max):
            process = flow(sdelab.VP(beta_max=beta_max))
            states = by_diffrax(process, diffrax.Heun(), x_T, grid, adjoint=diffrax.DirectAdjoint())
            return jnp.sum(states[-1] ** 2)

        found = jax.grad(ours)(20.0, diffrax.RecursiveCheckpointAdjoint())
        np.testing.assert_allclose(found, jax.grad(theirs)(20.0), rtol=1e-9)
        np.testing.assert_allclose(jax.grad(ours)(20.0, diffrax.BacksolveAdjoint()), found, rtol=2e-2)


def test_a_mean_of_the_last_step_is_refused_as_by_every_solver_of_diffrax():
    process, finish = flow(sdelab.VP()), sdelab.solvers.NoiselessPredictor()
    for solver in (diffrax.Heun(), diffrax.Bosh3()):
        with pytest.raises(TypeError, match="NoiselessPredictor needs a solver whose step has a mean"):
            sdelab.sample(None, process, jnp.ones((1, 2)), solver=solver, grid=[1.0, 0.5], finish=finish)


class Renamed(diffrax.Heun):
    """A user's own, which may do something else."""


class Linear(sdelab.ProbabilityFlow):
    """A process of its own, whose drift may be another."""


def test_only_these_methods_on_these_processes_are_taken():
    process = flow(sdelab.VP())
    reverse = sdelab.ReverseSDE(process.sde, process.score)
    assert with_known_numbers(diffrax.Tsit5(), process) == FlowRungeKutta(diffrax.Tsit5)
    assert with_known_numbers(diffrax.ShARK(), reverse) == SDERungeKutta(diffrax.ShARK)
    assert with_known_numbers(Renamed(), process) is None
    assert with_known_numbers(diffrax.Kvaerno3(), process) is None
    assert with_known_numbers(diffrax.Tsit5(), reverse) is None
    assert with_known_numbers(diffrax.Heun(), Linear(process.sde, process.score)) is None
    assert with_known_numbers(diffrax.HalfSolver(diffrax.Euler()), process) is None
