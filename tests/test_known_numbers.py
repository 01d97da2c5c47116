"""Numbers of a grid that are computed once, and when they are not."""

import dataclasses
import subprocess
import sys

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import solvers
from sdelab.exact import Gaussian
from sdelab.known_numbers import known_numbers
from sdelab.score import AbstractScore

GRID = np.array([1.0, 0.6, 0.3, 0.1])
CLOCK = -GRID.astype(np.float32)


def flow(sde: sdelab.AbstractAffineSDE) -> sdelab.ProbabilityFlow:
    return sdelab.ProbabilityFlow(sde, Gaussian(jnp.zeros(2), jnp.ones(2) * 0.1).score(sde))


class Counting(solvers.DDIM):
    """DDIM, which counts how often its numbers are computed."""

    calls = []  # noqa: RUF012

    def numbers(self, process, interval, past):
        self.calls.append(None)
        return super().numbers(process, interval, past)


def test_they_are_computed_once():
    Counting.calls.clear()
    x_T = jnp.ones((2, 2))
    first = [sdelab.sample(None, flow(sdelab.VP()), x_T, solver=Counting(), grid=GRID) for _ in range(3)]
    assert len(Counting.calls) == 1
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(
        first[0], sdelab.sample(None, flow(sdelab.VP()), x_T, solver=solvers.DDIM(), grid=GRID)
    )


@pytest.mark.parametrize("solver", [solvers.DDIM(), solvers.DPMSolver3(), solvers.DEIS(4)], ids=repr)
def test_another_process_grid_or_solver_has_others(solver):
    """Each as traced, where nothing is kept; the inner times of the first are close to none of the others."""
    x_T = jnp.asarray([[0.4, -1.0]])
    cases = [(20.0, GRID), (12.0, GRID), (20.0, GRID * 0.9), (20.0, GRID)]

    def sample(beta_max, grid):
        return sdelab.sample(None, flow(sdelab.VP(beta_max=beta_max)), x_T, solver=solver, grid=grid)

    kept = [sample(beta_max, grid) for beta_max, grid in cases]
    traced = [jax.jit(lambda beta_max, grid=grid: sample(beta_max, grid))(beta_max) for beta_max, grid in cases]
    np.testing.assert_allclose(kept, traced, rtol=2e-6)
    np.testing.assert_array_equal(kept[0], kept[3])
    for other in kept[1:3]:
        assert np.all(np.abs(kept[0] - other) > 1e-3 * np.abs(kept[0]))


def test_nothing_is_kept_of_arrays():
    assert known_numbers(solvers.DDIM(), flow(sdelab.VP(beta_max=jnp.asarray(20.0))), CLOCK) is None
    assert known_numbers(solvers.DDIM(), flow(sdelab.VP()), CLOCK) is not None


@pytest.mark.parametrize("solver", [solvers.DDIM(), diffrax.Heun()], ids=lambda s: type(s).__name__)
def test_a_function_that_closes_over_a_traced_number_is_differentiated(solver):
    """A schedule without leaves, of which nothing tells that it is no constant; against a difference quotient."""
    with jax.enable_x64(True):

        def loss(rate):
            sde = sdelab.FromSchedule(lambda t: jnp.exp(-rate * t), lambda t: jnp.sqrt(-jnp.expm1(-2.0 * rate * t)))
            process = sdelab.ProbabilityFlow(sde, lambda x, t: -3.0 * x)
            return jnp.sum(sdelab.sample(None, process, jnp.ones((1, 2)), solver=solver, grid=GRID))

        h = 1e-6
        np.testing.assert_allclose(jax.grad(loss)(1.0), (loss(1.0 + h) - loss(1.0 - h)) / (2.0 * h), rtol=1e-6)


def test_precision_is_part_of_the_question():
    with jax.enable_x64(True):
        double = known_numbers(solvers.DPMSolver3(), flow(sdelab.VP()), -GRID)
    single = known_numbers(solvers.DPMSolver3(), flow(sdelab.VP()), CLOCK)
    assert double is not None
    assert single is not None
    assert (double.numbers.inner.dtype, single.numbers.inner.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(single.numbers.inner, double.numbers.inner, rtol=1e-5)


class OfTheScore(solvers.StochasticDDIM):
    """Numbers that hang on the score's process, which is there, and whose noise hangs on the condition."""

    def numbers(self, process, interval, past):
        return process.score.sde.alpha(interval.t1), super().numbers(process, interval, past)

    def advance(self, process, x, interval, memory):
        return super().advance(process, x, dataclasses.replace(interval, numbers=interval.numbers[1]), memory)


def test_numbers_that_ask_for_the_score_are_computed_in_the_solve():
    process = sdelab.ReverseSDE(sdelab.VP(), flow(sdelab.VP()).score)
    assert known_numbers(OfTheScore(), process, CLOCK) is None
    key, x_T = jax.random.key(0), jnp.ones((2, 2))
    found, expected = (
        sdelab.sample(key, process, x_T, solver=solver, grid=GRID)
        for solver in (OfTheScore(), solvers.StochasticDDIM())
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class NoiseOfTheCondition(sdelab.ReverseSDE):
    def noise_level(self):
        return jnp.mean(self.condition)


def test_a_process_of_another_class_computes_its_own():
    """The posterior step without noise is DDIM's."""
    score = flow(sdelab.VP()).score

    def sample(kind, level):
        process = kind(sdelab.VP(), lambda x, t, level: score(x, t), condition=jnp.full((3,), level))
        return sdelab.sample(jax.random.key(0), process, jnp.ones((3, 2)), solver=solvers.StochasticDDIM(), grid=GRID)

    still, noisy = sample(NoiseOfTheCondition, 0.0), sample(NoiseOfTheCondition, 1.0)
    np.testing.assert_allclose(noisy, sample(sdelab.ReverseSDE, 1.0), rtol=1e-5)
    np.testing.assert_allclose(
        still, sdelab.sample(None, flow(sdelab.VP()), jnp.ones((3, 2)), solver=solvers.DDIM(), grid=GRID), rtol=1e-5
    )


KEPT = """
import gc, weakref
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
import sdelab

class Weighted(eqx.Module):
    w: jax.Array
    def __call__(self, x, t):
        return -self.w * x

seen = []
def last(w):
    seen.append(weakref.ref(w))
    process = sdelab.ProbabilityFlow(sdelab.VP(), Weighted(w))
    return jnp.sum(sdelab.sample(None, process, jnp.ones((1, 2)), solver=sdelab.solvers.DDIM(), grid=[1.0, 0.5]))

for call in (jax.grad(last), last):
    w = jnp.asarray(1.5) + 0.0
    call(w)
    del w
    gc.collect()
print([reference() for reference in seen])
"""


@pytest.mark.slow
def test_nothing_of_a_network_is_kept():
    """In a process of its own: the checks of types in these tests hold on to what they have checked."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[None, None]"


def test_a_solver_that_does_not_fit_is_refused_each_time():
    class Choosy(solvers.DDIM):
        def check(self, process):
            if not isinstance(process.score, AbstractScore):
                raise TypeError("a stranger")

    x_T = jnp.ones((1, 2))
    sdelab.sample(None, flow(sdelab.VP()), x_T, solver=Choosy(), grid=GRID)
    for _ in range(2):
        with pytest.raises(TypeError, match="a stranger"):
            sdelab.sample(None, sdelab.ProbabilityFlow(sdelab.VP(), lambda x, t: -x), x_T, solver=Choosy(), grid=GRID)


@pytest.mark.parametrize("solver", [solvers.DDIM(), solvers.DEIS(3)], ids=repr)
def test_without_compilation(solver):
    compiled = sdelab.sample(None, flow(sdelab.VP()), jnp.ones((1, 2)), solver=solver, grid=GRID)
    with jax.disable_jit():
        found = sdelab.sample(None, flow(sdelab.VP()), jnp.ones((1, 2)), solver=solver, grid=GRID)
    np.testing.assert_allclose(found, compiled, rtol=1e-4)  # inner times of a bisection in float32
