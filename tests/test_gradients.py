"""Gradients through `sample`, in float64: each against central differences of what it claims to differentiate."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.integration import FIRST_STEP
from sdelab.sampling import Joint, PerSample, ReplayAcceptedSteps
from sdelab.solvers.base import Interval
from sdelab.solvers.diffrax_terms import reverse_terms

KEY = jax.random.key(3)
GRID = grids.uniform(sdelab.VP(), 4, t_min=0.1)
WIDTH, BATCH = 3, 2


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def network(params, x, c_noise, condition, keys=None):
    """One hidden layer, of the state, the noise level and the condition."""
    inputs = jnp.concatenate([x, c_noise[:, None], condition], axis=1)
    return jnp.tanh(inputs @ params["in"]) @ params["out"]


def network_score(inputs):
    return sdelab.score.NetworkScore(inputs["sde"], sdelab.score.NoisePrediction(), network, inputs["params"])


class TreeScore(eqx.Module):
    """A score that is a pytree of its own, without closure and without a denoiser."""

    sde: sdelab.VP
    params: dict

    def __call__(self, x, t, condition):
        level = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        return network(self.params, x, level, condition) - x / (self.sde.alpha(t) ** 2 * 0.3 + self.sde.sigma(t) ** 2)


def tree_score(inputs):
    return TreeScore(inputs["sde"], inputs["params"])


def draw_inputs():
    """What a gradient can be taken with respect to: network, SDE, start, and condition."""
    key_in, key_out, key_x, key_condition = jax.random.split(KEY, 4)
    return {
        "params": {"in": jax.random.normal(key_in, (4, WIDTH)), "out": 0.5 * jax.random.normal(key_out, (WIDTH, 2))},
        "sde": sdelab.VP(beta_min=jnp.asarray(0.2), beta_max=jnp.asarray(8.0)),
        "x_T": jax.random.normal(key_x, (BATCH, 2)),
        "condition": jax.random.normal(key_condition, (BATCH, 1)),
    }


def numbers(tree):
    """The tree with its numbers as leaves to differentiate; the interval's ends are structure."""
    return eqx.partition(tree, eqx.is_inexact_array)


def loss_of(make_score=network_score, stochastic=False, key=None, **arguments):
    kind = sdelab.ReverseSDE if stochastic else sdelab.ProbabilityFlow

    def loss(dynamic, static):
        inputs = eqx.combine(dynamic, static)
        process = kind(inputs["sde"], make_score(inputs), condition=inputs["condition"])
        x = sdelab.sample(key, process, inputs["x_T"], **arguments)
        return jnp.sum(jnp.sin(x + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)))

    return loss


def directions(dynamic):
    """A random direction in each group of inputs, zero in the others."""
    leaves, structure = jax.tree.flatten(dynamic)
    keys = jax.random.split(jax.random.key(11), len(leaves))
    everywhere = jax.tree.unflatten(
        structure, [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )
    zero = jax.tree.map(jnp.zeros_like, everywhere)
    return {name: {**zero, name: everywhere[name]} for name in everywhere}


def along(dynamic, direction, h):
    return jax.tree.map(lambda leaf, d: leaf + h * d, dynamic, direction)


def inner(a, b):
    return sum(float(jnp.sum(x * y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def check_gradient(loss, *, value=None, h=1e-5, rtol=1e-6):
    """Group by group. One compiled program gives values and gradients; `value` is what is differenced, if another."""
    dynamic, static = numbers(draw_inputs())
    value_and_grad = jax.jit(lambda dynamic: jax.value_and_grad(loss)(dynamic, static))
    value = value or (lambda dynamic: value_and_grad(dynamic)[0])
    gradient = value_and_grad(dynamic)[1]
    for name, direction in directions(dynamic).items():
        difference = (value(along(dynamic, direction, h)) - value(along(dynamic, direction, -h))) / (2 * h)
        assert abs(float(difference)) > 1e-4, name
        np.testing.assert_allclose(inner(gradient, direction), difference, rtol=rtol, err_msg=name)


STORED = np.random.default_rng(0).normal(size=(len(GRID) - 1, 1, BATCH, 2))
CORRECTED = solvers.PredictorCorrector(solvers.Ancestral(), solvers.Langevin(snr=0.1))

ON_A_GRID = {
    "EulerMaruyama, stored noise": lambda: dict(
        solver=solvers.EulerMaruyama(), stochastic=True, noise=solvers.StoredNoise(jnp.asarray(STORED))
    ),
    "PredictorCorrector": lambda: dict(solver=CORRECTED, stochastic=True, key=KEY, finish=solvers.Tweedie()),
    "Heun, a pytree score": lambda: dict(solver=solvers.Heun(), make_score=tree_score),
    "diffrax.Tsit5": lambda: dict(solver=diffrax.Tsit5()),
    "diffrax.ShARK": lambda: dict(solver=diffrax.ShARK(), stochastic=True, key=KEY),
    "diffrax.Heun, direct": lambda: dict(solver=diffrax.Heun(), adjoint=diffrax.DirectAdjoint()),
}
QUICK = ("EulerMaruyama, stored noise", "Heun, a pytree score")


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in ON_A_GRID])
def test_gradients_on_a_grid(case):
    check_gradient(loss_of(grid=GRID, **ON_A_GRID[case]()))


@pytest.mark.parametrize("solver", [solvers.Ancestral(), solvers.ReverseDiffusion(), solvers.Heun()], ids=repr)
@pytest.mark.parametrize("sde", [sdelab.VP(), sdelab.SubVP(), sdelab.VEExact(sigma_max=5.0)], ids=repr)
def test_gradients_of_a_last_step_to_time_zero(sde, solver):
    """Nothing is NaN where sigma = 0: the step itself, without the loop around it."""
    name = "sigma_max" if isinstance(sde, sdelab.VEExact) else "beta_max"
    times, noise = jnp.array([0.3, 0.0]), jnp.ones((solver.draws(), 1, 2))
    interval = Interval(times[0], times[1], jnp.asarray(0), jnp.asarray(True), noise)

    def loss(value, x):
        changed = dataclasses.replace(sde, **{name: value})
        kind = sdelab.ReverseSDE if solver.kind == "stochastic" else sdelab.ProbabilityFlow
        process = kind(changed, lambda x, t: -x / (0.3 * changed.alpha(t) ** 2 + changed.sigma(t) ** 2))
        return jnp.sum(jnp.sin(solver.advance(process, x, interval, solver.initial_memory(process, x)).x))

    value, x = jnp.asarray(getattr(sde, name)), jnp.array([[0.8, -1.1]])
    value_and_grad = jax.jit(jax.value_and_grad(loss, (0, 1)))
    by_value, by_x = value_and_grad(value, x)[1]
    difference = (value_and_grad(value + 1e-5, x)[0] - value_and_grad(value - 1e-5, x)[0]) / 2e-5
    np.testing.assert_allclose(by_value, difference, rtol=1e-6, atol=1e-10)
    bump = jnp.array([[1e-5, 2e-5]])
    difference = (value_and_grad(value, x + bump)[0] - value_and_grad(value, x - bump)[0]) / 2e-5
    np.testing.assert_allclose(by_x[0, 0] + 2 * by_x[0, 1], difference, rtol=1e-6)


@pytest.mark.slow
def test_gradient_of_a_grid_to_time_zero():
    check_gradient(loss_of(tree_score, solver=solvers.Ancestral(), grid=[1.0, 0.3, 0.0], stochastic=True, key=KEY))


@pytest.mark.parametrize("case", ["diffrax.ShARK", "diffrax.Tsit5"])
@pytest.mark.slow
def test_forward_mode(case):
    """`jax.jvp`, in a direction through all groups at once."""
    loss = loss_of(grid=GRID, **ON_A_GRID[case](), adjoint=diffrax.ForwardMode())
    dynamic, static = numbers(draw_inputs())
    direction = jax.tree.map(lambda *parts: sum(parts), *directions(dynamic).values())
    push = jax.jit(lambda dynamic: jax.jvp(lambda d: loss(d, static), (dynamic,), (direction,)))
    up, down = (push(along(dynamic, direction, h))[0] for h in (1e-5, -1e-5))
    np.testing.assert_allclose(push(dynamic)[1], (up - down) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [dict(grid=grids.uniform(sdelab.VP(), 100, t_min=0.1)), dict(rtol=1e-8, error_control=Joint())],
    ids=["grid", "adaptive"],
)
@pytest.mark.slow
def test_backsolve(arguments):
    """The adjoint equation is solved, and not the steps differentiated: equal in the limit of small steps."""
    adjoint = diffrax.BacksolveAdjoint()
    check_gradient(loss_of(solver=diffrax.Bosh3(), adjoint=adjoint, **arguments), rtol=1e-5)


ADAPTIVE = dict(solver=diffrax.Heun(), rtol=3e-2, atol=3e-2, grid=[1.0, 0.1])


def stiff_score(inputs):
    """With a bump in time, at which steps are rejected."""
    plain = tree_score(inputs)
    return lambda x, t, condition: plain(x, t, condition) * (1.0 + 4.0 * jnp.exp(-(((t - 0.6) / 0.03) ** 2)))


def accepted_grid(inputs, x_T, condition):
    """The times of the accepted steps, by diffrax alone: what a replay must step over."""
    process = sdelab.ProbabilityFlow(inputs["sde"], stiff_score(inputs), condition=condition)
    solver = ADAPTIVE["solver"]
    solution = diffrax.diffeqsolve(
        reverse_terms(solver, process, None),
        solver,
        -1.0,
        -0.1,
        FIRST_STEP * 0.9,
        x_T,
        args=process,
        saveat=diffrax.SaveAt(t0=True, steps=True),
        stepsize_controller=diffrax.PIDController(rtol=3e-2, atol=3e-2),
    )
    return -np.asarray(solution.ts)[np.isfinite(np.asarray(solution.ts))], int(solution.stats["num_rejected_steps"])


@pytest.mark.parametrize("control", [PerSample(), Joint()], ids=repr)
@pytest.mark.slow
def test_replay_differentiates_the_accepted_steps(control):
    """Value and gradient are those of a solve on a given grid, the one that the controller had chosen."""
    inputs = draw_inputs()
    inputs["x_T"] = inputs["x_T"] * jnp.array([[0.3], [3.0]])  # unequal numbers of steps
    dynamic, static = numbers(inputs)
    systems = [slice(0, BATCH)] if isinstance(control, Joint) else [slice(i, i + 1) for i in range(BATCH)]
    recorded = [accepted_grid(inputs, inputs["x_T"][part], inputs["condition"][part]) for part in systems]

    def sums(dynamic, part, **arguments):
        given = eqx.combine(dynamic, static)
        process = sdelab.ProbabilityFlow(given["sde"], stiff_score(given), condition=given["condition"][part])
        x, info = sdelab.sample_with_info(None, process, given["x_T"][part], **arguments)
        return jnp.sum(jnp.sin(x)), info

    def replayed(dynamic):
        adjoint = ReplayAcceptedSteps(steps=24)
        return sums(dynamic, slice(None), error_control=control, adjoint=adjoint, **ADAPTIVE)

    def on_the_grid(dynamic):
        return sum(
            sums(dynamic, part, solver=ADAPTIVE["solver"], grid=times)[0]
            for part, (times, _) in zip(systems, recorded, strict=True)
        )

    (value, info), gradient = jax.jit(jax.value_and_grad(replayed, has_aux=True))(dynamic)
    on_the_grid = jax.jit(on_the_grid)
    counts = np.array([[len(times) - 1, rejected] for times, rejected in recorded])
    assert np.all(counts[:, 1] > 0)
    np.testing.assert_array_equal(np.stack([info.accepted, info.rejected], 1), np.broadcast_to(counts, (BATCH, 2)))
    np.testing.assert_array_equal(info.evaluations, 2 * (2 * info.accepted + info.rejected))
    np.testing.assert_allclose(value, on_the_grid(dynamic), rtol=1e-13)
    for name, direction in directions(dynamic).items():
        up, down = (on_the_grid(along(dynamic, direction, h)) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(inner(gradient, direction), (up - down) / 2e-5, rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_replay_of_adaptive_stochastic_steps():
    """On the same Brownian tree: value and gradient are those of the adaptive solve, whose controller diffrax holds fixed."""
    dynamic, static = numbers(draw_inputs())
    results = []
    for adjoint in (diffrax.RecursiveCheckpointAdjoint(), ReplayAcceptedSteps()):
        loss = loss_of(
            stochastic=True, key=KEY, solver=diffrax.SRA1(), rtol=0.3, grid=[1.0, 0.1], max_steps=64, adjoint=adjoint
        )
        results.append(jax.jit(jax.value_and_grad(loss))(dynamic, static))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), *results)


def test_replay_that_does_not_fit():
    process = sdelab.ProbabilityFlow(sdelab.VP(), lambda x, t: -2.0 * x)
    with pytest.raises(RuntimeError, match=r"steps=3\): \d+ steps were accepted"):
        sdelab.sample(None, process, jnp.ones((1, 2)), solver=diffrax.Heun(), rtol=1e-3, adjoint=ReplayAcceptedSteps(3))


REFUSED = [
    (dict(solver=solvers.Heun(), grid=GRID), False, diffrax.BacksolveAdjoint(), "Heun is a discrete rule"),
    (dict(solver=diffrax.ShARK(), grid=GRID), True, diffrax.BacksolveAdjoint(), "a ReverseSDE has noise"),
    (dict(solver=diffrax.Kvaerno3(), grid=GRID), False, diffrax.BacksolveAdjoint(), "Kvaerno3 is implicit"),
    (dict(solver=diffrax.KenCarp4(), rtol=1e-3), False, diffrax.BacksolveAdjoint(), "KenCarp4 is implicit"),
    (dict(solver=diffrax.Heun(), grid=GRID), False, diffrax.ImplicitAdjoint(), "ImplicitAdjoint"),
    (dict(solver=diffrax.Heun(), grid=GRID), False, "backsolve", "adjoint = 'backsolve'"),
]


@pytest.mark.parametrize(("arguments", "stochastic", "adjoint", "words"), REFUSED)
@pytest.mark.usefixtures("unhooked")
def test_adjoints_without_a_meaning_are_refused(arguments, stochastic, adjoint, words):
    kind = sdelab.ReverseSDE if stochastic else sdelab.ProbabilityFlow
    process = kind(sdelab.VP(), lambda x, t: -x)
    with pytest.raises(TypeError, match=words) as error:
        sdelab.sample(KEY, process, (2, 2), adjoint=adjoint, **arguments)
    assert "RecursiveCheckpointAdjoint()" in str(error.value)


def test_other_errors_of_adjoints():
    process = sdelab.ProbabilityFlow(sdelab.VP(), lambda x, t: -x)
    with pytest.raises(ValueError, match="BacksolveAdjoint keeps no steps"):
        sdelab.trajectory(KEY, process, (2, 2), solver=diffrax.Heun(), grid=GRID, adjoint=diffrax.BacksolveAdjoint())
    with pytest.raises(TypeError, match="not accepted by ReplayAcceptedSteps"):
        ReplayAcceptedSteps(adjoint=diffrax.BacksolveAdjoint())
    with pytest.raises(ValueError, match="steps = 0"):
        ReplayAcceptedSteps(steps=0)
