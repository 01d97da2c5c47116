"""The grid fitted to a solver beats every fixed rule on trajectories that it has not seen, at equal steps."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import grids, solvers
from sdelab.optimised_grids import fixed_rules, least_error
from sdelab.testing.order import two_components, walk

SDE = sdelab.VP()


def flow(sde=SDE):
    return sdelab.ProbabilityFlow(sde, two_components().score(sde))


@pytest.mark.parametrize(
    ("sde", "solver", "n", "gain"),
    [
        pytest.param(SDE, solvers.Heun(), 8, 0.75, id="VP-Heun-8"),
        pytest.param(sdelab.EDM(), diffrax.Euler(), 10, 0.98, id="EDM-Euler-10", marks=pytest.mark.slow),
    ],
)
def test_beats_the_best_fixed_rule(sde, solver, n, gain):
    """Held-out prior draws, root mean square distance to the flow by Dopri8 in 512 steps, by single steps from Python."""
    with jax.enable_x64(True):
        seen, unseen = sde.prior_sample(jax.random.key(0), (64, 2)), sde.prior_sample(jax.random.key(1), (512, 2))
        grid = least_error(flow(sde), seen, n, solver=solver)
        exact = walk(diffrax.Dopri8(), flow(sde), unseen, grids.log_snr(sde, 512))

        def error(grid):
            return float(jnp.sqrt(jnp.mean((walk(solver, flow(sde), unseen, grid) - exact) ** 2)))

        rules = {name: error(rule) for name, rule in fixed_rules(sde, n).items()}
        assert error(grid) <= gain * min(rules.values()), (error(grid), rules)
    assert grid.dtype == np.float64
    assert grid.shape == (n + 1,)
    assert (grid[0], grid[-1]) == (sde.t_max, sde.t_min)
    assert np.all(np.diff(grid) < 0)


def test_one_step_leaves_nothing_to_choose():
    with jax.enable_x64(True):
        x_T = SDE.prior_sample(jax.random.key(0), (8, 2))
        grid = least_error(flow(), x_T, 1, solver=diffrax.Euler(), t_min=0.1, reference_steps=8)
    np.testing.assert_array_equal(grid, [SDE.t_max, 0.1])


def test_levels_and_times_are_inverse():
    grid = grids.uniform(SDE, 7)
    np.testing.assert_allclose(grids.from_log_snr(SDE, grids.levels_of(SDE, grid)), grid, rtol=1e-12)


def test_errors(unhooked):
    x_T = SDE.prior_sample(jax.random.key(0), (8, 2))
    with pytest.raises(TypeError, match="must be an instance of ProbabilityFlow"):
        least_error(sdelab.ReverseSDE(SDE, two_components().score(SDE)), x_T, 4, solver=solvers.Heun())
    with pytest.raises(TypeError, match="EulerMaruyama is a stochastic solver"):
        least_error(flow(), x_T, 4, solver=solvers.EulerMaruyama())
    with pytest.raises(ValueError, match=r"x_T has shape \(1, 2\); accepted: .* at least n = 4 numbers"):
        least_error(flow(), x_T[:1], 4, solver=solvers.Heun())
    with pytest.raises(ValueError, match="n = 0"):
        least_error(flow(), x_T, 0, solver=solvers.Heun())
    with pytest.raises(ValueError, match="increase strictly"):
        grids.from_log_snr(SDE, [1.0, 0.0])
