r"""Observed orders of convergence, in float64, against the claimed ones.

On the interval of $\sigma/\alpha$ from 5 to 0.05 ($\sigma(t_1) > 0$), on grids uniform in log-SNR, by the root mean square error
along the trajectories, where it lies between 2e-2 and 1e-14 (weak ones: by mean and variance at the end, between 6e-2
and 1e-13): `sdelab.testing.order`. `python -m experiments.orders` measures
every solver on five processes, and on Gaussian and mixture data, and stores the figures; here they are held against
the claims, and every solver is measured again on some of the problems.
"""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from experiments.orders.measure import DATA
from experiments.orders.measure import PROCESSES as MEASURED
from experiments.orders.measure import problem as stored_problem
from sdelab import solvers
from sdelab.solvers.catalog import DETERMINISTIC, STOCHASTIC
from sdelab.solvers.table import claimed_order, measured_orders
from sdelab.testing.order import (
    WEAK_STEPS,
    Convergence,
    flow_convergence,
    flow_problem,
    steps_for,
    weak_convergence,
)
from tests.solvers.cases import PROCESSES

MEAN, VARIANCE = 0.7, 0.3
CATALOGUE = {"deterministic": DETERMINISTIC, "stochastic": STOCHASTIC}
CLAIMED = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind, catalogue in CATALOGUE.items()
    for name, solver in catalogue.items()
    if claimed_order(solver, kind) is not None
]


def gaussian(sde):
    return sdelab.exact.Gaussian(jnp.full((1,), MEAN), jnp.asarray(VARIANCE)).score(sde)


@pytest.mark.parametrize(("kind", "name"), CLAIMED)
def test_claims_are_kept(kind, name):
    """On every process and both data; and ours no more than claimed, so that the tables of steps are asymptotic."""
    orders = measured_orders()[kind][name]
    data = DATA if kind == "deterministic" else ("Gaussian",)
    assert set(orders) == {f"{process}, {each}" for process in MEASURED for each in data}
    claimed, own = claimed_order(CATALOGUE[kind][name], kind), not name.startswith("diffrax")
    assert min(orders.values()) >= claimed - 0.2, orders
    assert not own or kind == "stochastic" or max(orders.values()) <= claimed + 0.2, orders


@pytest.mark.parametrize(("kind", "name"), CLAIMED)
@pytest.mark.slow
def test_stored_orders_are_those_measured(kind, name):
    """On one of the processes, and one of the data, for each solver in turn."""
    solver, stored = CATALOGUE[kind][name], measured_orders()[kind][name]
    turn = list(CATALOGUE[kind]).index(name)
    process, data = list(MEASURED)[turn % len(MEASURED)], list(DATA)[turn // len(MEASURED) % len(DATA)]
    if kind == "stochastic":
        where, steps = f"{process}, Gaussian", steps_for(claimed_order(solver, kind), WEAK_STEPS)
        order = weak_convergence(solver, MEASURED[process], steps).order
    else:
        where, steps = f"{process}, {data}", steps_for(claimed_order(solver, kind))
        order = problem(process, data).convergence(solver, steps).order
    assert abs(order - stored[where]) <= 0.1, (where, order, stored[where])


@functools.cache
def problem(process, data):
    return flow_problem(MEASURED[process], None if DATA[data] is None else DATA[data]())


def test_orders_of_one_of_each_kind():
    """As above for VP, quickly and in full: what the stored figures are for all."""
    found = flow_convergence(solvers.Heun(), sdelab.VP(), (32, 64, 128))
    assert 1.9 <= found.order <= 2.1, found
    found = weak_convergence(solvers.EulerMaruyama(), sdelab.VP(), (32, 64, 128))
    assert 0.8 <= found.order <= 1.3, found


def test_order_is_a_slope():
    """Of the errors inside the window; none where there are too few, and `inf` where all are rounding."""
    steps = (10, 20, 40, 80)
    assert Convergence(steps, tuple(3.0 * n**-4.0 for n in steps)).order == pytest.approx(4.0)
    assert Convergence(steps, (0.5, 1e-3, 2.5e-4, 6.25e-5)).order == pytest.approx(2.0)
    assert np.isnan(Convergence(steps, (0.5, 0.2, 0.1, 1e-3)).order)
    assert np.isinf(Convergence(steps, (1e-15, 2e-15, 3e-14, 5e-15)).order)


def of_the_estimate(method):
    """The solution of one order less that an embedded method carries for its estimate of the error."""
    full = method.tableau
    lower = diffrax.ButcherTableau(
        c=full.c, a_lower=full.a_lower, b_sol=full.b_sol - full.b_error, b_error=full.b_error
    )
    return type(f"Lower{method.__name__}", (method,), {"tableau": lower})()


def test_an_order_less_than_claimed_is_seen():
    """In the steps that a method of order 5 is given, one of order 4 shows 4, where the fifth order shows 5."""
    steps, of_gaussian = steps_for(5), problem("VP", "Gaussian")
    assert of_gaussian.convergence(of_the_estimate(diffrax.Dopri5), steps).order == pytest.approx(4, abs=0.2)
    assert of_gaussian.convergence(diffrax.Dopri5(), steps).order == pytest.approx(5, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "claimed", "data"),
    [(diffrax.Dopri5, 5, DATA), (diffrax.Tsit5, 5, DATA), (diffrax.Dopri8, 8, ("Gaussian",))],
    ids=["Dopri5", "Tsit5", "Dopri8"],
)
def test_it_is_seen_on_every_process(method, claimed, data):
    """Though errors may fall faster before the slope settles. Of order 8 on Gaussian data; on mixtures 7 may show 8."""
    lower, steps = of_the_estimate(method), steps_for(claimed)
    orders = {(p, d): stored_problem(p, d).convergence(lower, steps).order for p in MEASURED for d in data}
    assert max(orders.values()) < claimed - 0.2, orders


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match=r"steps = \(3, 6\) is not accepted; each must be more than 3"):
        flow_convergence(solvers.DDIM(), sdelab.VP(), (3, 6))


@pytest.mark.parametrize("process", MEASURED)
def test_the_closed_form_of_a_gaussian(process):
    """It is what a method of order 8 comes to, at every point of the grid."""
    errors = problem(process, "Gaussian").convergence(diffrax.Dopri8(), (180, 256)).errors
    assert max(errors) <= 5e-15, errors


def test_the_exact_posterior_step_is_exact_for_a_point():
    """Where the data are a point, the ancestral step has the marginal's mean and variance, whatever the step."""
    with jax.enable_x64(True):
        for sde in PROCESSES.values():
            point = sdelab.exact.Gaussian(jnp.full((1,), MEAN), jnp.asarray(0.0)).score(sde)
            t0, t1 = (jnp.asarray(t) for t in ((0.8, 0.1) if sde.t_max <= 1 else (5.0, 0.1)))
            mean0, std0 = float(sde.alpha(t0)) * MEAN, float(sde.sigma(t0))
            x = jnp.array([[mean0], [mean0 + std0], [mean0]])
            noise = jnp.array([[0.0], [0.0], [1.0]])[None]
            interval = solvers.Interval(t0, t1, jnp.zeros((), int), jnp.zeros((), bool), noise)
            y = solvers.Ancestral().advance(sdelab.ReverseSDE(sde, point), x, interval, None).x[:, 0]
            np.testing.assert_allclose(y[0], sde.alpha(t1) * MEAN, rtol=1e-10)
            np.testing.assert_allclose((y[1] - y[0]) ** 2 + (y[2] - y[0]) ** 2, sde.sigma(t1) ** 2, rtol=1e-9)


def test_transition_is_the_forward_process():
    """f and G of `Transition` carry the marginal at t1 to the marginal at t0."""
    with jax.enable_x64(True):
        for sde in PROCESSES.values():
            t0, t1 = (jnp.asarray(t) for t in ((0.8, 0.1) if sde.t_max <= 1 else (5.0, 0.1)))
            interval = solvers.Interval(t0, t1, jnp.zeros((), int), jnp.zeros((), bool), jnp.zeros((1, 1, 1)))
            f, G = solvers.Transition().forward(sde, jnp.ones((1, 1)), interval)
            scale = 1.0 + f[0, 0]
            np.testing.assert_allclose(scale * sde.alpha(t1), sde.alpha(t0), rtol=1e-10)
            np.testing.assert_allclose(scale**2 * sde.sigma(t1) ** 2 + G**2, sde.sigma(t0) ** 2, rtol=1e-10)


def test_steps_to_time_zero_do_not_divide_by_sigma():
    """Heun and Ancestral end at t = 0 with the denoised state; for a Gaussian that is known."""
    for sde in (sdelab.VP(), sdelab.EDM(), sdelab.SubVP(), sdelab.RectifiedFlow()):
        score = gaussian(sde)
        t = jnp.asarray(0.3)
        interval = solvers.Interval(t, 0.0 * t, jnp.zeros((), int), jnp.ones((), bool), jnp.ones((1, 4, 1)))
        x = jnp.linspace(-1.0, 1.0, 4)[:, None]
        for solver, process in (
            (solvers.Heun(), sdelab.ProbabilityFlow(sde, score)),
            (solvers.Ancestral(), sdelab.ReverseSDE(sde, score)),
        ):
            np.testing.assert_allclose(solver.advance(process, x, interval, None).x, score.denoise(x, t), rtol=1e-5)
