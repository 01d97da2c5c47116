r"""Likelihoods by the instantaneous change of variables along the probability flow.

With $dx = v(x, t)\,dt$ the probability flow, $\log p_{t_{min}}(x) = \log p_{t_{max}}(z) + \int_{t_{min}}^{t_{max}} \nabla\cdot v\,dt$,
$z$ the state at $t_{max}$ of the flow that starts from $x$. Chen et al. (2018), theorem 1, https://arxiv.org/abs/1806.07366;
Song et al. (2021), eq. 39 (appendix D.2), https://arxiv.org/abs/2011.13456.
"""

import abc
from collections.abc import Callable
from typing import Any, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key

from sdelab import grids
from sdelab._broadcast import event_size, sum_event
from sdelab._checks import check_count, check_increasing, check_instance
from sdelab._typing import PRNGKeys, State
from sdelab.arguments import (
    as_arrays,
    as_clock,
    check_key,
    check_starts_at_prior,
    check_states,
    plan_steps,
)
from sdelab.integration import FIRST_STEP, check_success, total_evaluations, with_root_tolerance
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.diffrax_terms import IMEX, check_diffrax_solver, cost
from sdelab.solvers.noise import sample_keys

LogDensity = Callable[[State], Float[Array, " batch"]]


class AbstractDivergence(eqx.Module):
    r"""How $\nabla\cdot v$ is computed, in the same pass of the network as $v$."""

    stochastic: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def probes(self, key: Any, x: State) -> State | None:
        """The random directions of one solve, shape `(probes, batch, *event)`: fixed per sample along its whole path."""

    @abc.abstractmethod
    def __call__(
        self, velocity: Callable[[State], State], x: State, probes: State | None
    ) -> tuple[State, Float[Array, "probes batch"]]:
        """The velocity at `x`, and its divergence by each probe, shape `(probes, batch)`."""


class ExactTrace(AbstractDivergence):
    """The trace of the Jacobian, one forward derivative per dimension, `chunk` dimensions at a time.

    As many tangent passes as there are dimensions: for points and small images. No error.
    """

    chunk: int = eqx.field(default=64, static=True)
    stochastic = False

    def __check_init__(self):
        check_count(chunk=self.chunk)

    def probes(self, key: Any, x: State) -> State | None:
        return None

    def __call__(
        self, velocity: Callable[[State], State], x: State, probes: State | None
    ) -> tuple[State, Float[Array, "probes batch"]]:
        value, tangent = jax.linearize(velocity, x)

        def diagonal(index: Array) -> Float[Array, " batch"]:
            direction = jax.nn.one_hot(index, event_size(x.shape), dtype=x.dtype).reshape(1, *x.shape[1:])
            column = tangent(jnp.broadcast_to(direction, x.shape))
            return sum_event(column * direction)

        entries = jax.lax.map(
            diagonal, jnp.arange(event_size(x.shape)), batch_size=min(self.chunk, event_size(x.shape))
        )
        return value, jnp.sum(entries, axis=0)[None]


class Hutchinson(AbstractDivergence):
    r"""Hutchinson's estimate $E[\epsilon^T J \epsilon]$ with Rademacher probes, unbiased; one tangent pass per probe.

    Each sample keeps its probes along its whole solve. Hutchinson (1989); Grathwohl et al. (2019), eq. 8,
    https://arxiv.org/abs/1810.01367. Fields: `count` >= 1 probes, whose spread gives the standard error.
    """

    count: int = eqx.field(default=1, static=True)
    stochastic = True

    def __check_init__(self):
        check_count(count=self.count)

    def probes(self, key: Any, x: State) -> State | None:
        draw = jax.vmap(lambda key: jax.random.rademacher(key, (self.count, *x.shape[1:]), x.dtype))
        return jnp.moveaxis(draw(key), 1, 0)

    def __call__(
        self, velocity: Callable[[State], State], x: State, probes: State | None
    ) -> tuple[State, Float[Array, "probes batch"]]:
        return _quadratic_forms(velocity, x, probes)


class GaussianHutchinson(AbstractDivergence):
    r"""Hutchinson's estimate with normal probes: unbiased, of larger variance than with Rademacher ones.

    Fields: `count` >= 1 probes.
    """

    count: int = eqx.field(default=1, static=True)
    stochastic = True

    def __check_init__(self):
        check_count(count=self.count)

    def probes(self, key: Any, x: State) -> State | None:
        draw = jax.vmap(lambda key: jax.random.normal(key, (self.count, *x.shape[1:]), x.dtype))
        return jnp.moveaxis(draw(key), 1, 0)

    def __call__(
        self, velocity: Callable[[State], State], x: State, probes: State | None
    ) -> tuple[State, Float[Array, "probes batch"]]:
        return _quadratic_forms(velocity, x, probes)


class FixedProbes(AbstractDivergence):
    r"""Hutchinson's estimate with given directions, shape `(probes, batch, *event)`: to replay a recorded run."""

    directions: Float[Array, "probes batch ..."]
    stochastic = False

    def probes(self, key: Any, x: State) -> State | None:
        if self.directions.shape[1:] != x.shape:
            raise ValueError(f"directions have shape {self.directions.shape}; accepted: (probes, {x.shape}).")
        return self.directions.astype(x.dtype)

    def __call__(
        self, velocity: Callable[[State], State], x: State, probes: State | None
    ) -> tuple[State, Float[Array, "probes batch"]]:
        return _quadratic_forms(velocity, x, probes)


class LikelihoodInfo(eqx.Module):
    """`latent`, the state at `t_max`; `standard_error` of the divergence in nats per sample, 0 for an exact trace and
    NaN for a single probe; `evaluations` per sample; diffrax's `result`."""

    latent: State
    standard_error: Float[Array, " batch"]
    evaluations: Int[Array, " batch"] | None
    result: Any


def log_prob(process: ProbabilityFlow, x: State, **arguments: Any) -> Float[Array, " batch"]:
    """Log-density at the end of sampling in nats, shape `(batch,)`: `log_prob_with_info`, without the information."""
    return log_prob_with_info(process, x, **arguments)[0]


def log_prob_with_info(
    process: ProbabilityFlow,
    x: State,
    *,
    divergence: AbstractDivergence = ExactTrace(),
    key: Key[Array, "..."] | None = None,
    terminal: LogDensity | None = None,
    solver: diffrax.AbstractSolver | None = None,
    grid: grids.GridLike | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 4096,
) -> tuple[Float[Array, " batch"], LikelihoodInfo]:
    """Log-density of `x` at the end of the grid (default `t_min`), in nats, shape `(batch,)`, and what it cost.

    `divergence`: `ExactTrace()`, `Hutchinson()`, `GaussianHutchinson()`; a random one needs a `key`. `terminal`: the
    log-density at `t_max`, by default the process's prior. `solver`: a diffrax ODE solver, default `diffrax.Tsit5()`;
    `grid`, `rtol`, `atol`, `max_steps` as in `sample`, with steps chosen for each sample alone (default 1e-5).
    The process's condition holds for the likelihood too. Errors: a process that is not a probability flow, a random
    divergence without a key, a solve that exhausts its steps.
    """
    check_flow(process, "log_prob")
    check_instance(AbstractDivergence, divergence=divergence)
    x = check_states(process, x)
    check_key(key, x.shape[0], needed=False)
    if divergence.stochastic and key is None:
        raise ValueError(f"key = None is not accepted with divergence = {divergence!r}, which draws probes.")
    solver = diffrax.Tsit5() if solver is None else solver
    check_forward_solver(solver, process)
    times, controller = plan_steps(process, solver, grid, rtol, atol, x.dtype)
    if terminal is None:
        check_starts_at_prior(times, process.sde, "the log-density there as terminal")
    clock = as_clock(times[::-1].copy(), x.dtype)
    latent, change, stats = _integrate(as_arrays(process), x, key, clock, solver, controller, divergence, max_steps)
    check_success(stats["success"], stats["result"], stats["steps"], max_steps)
    end = process.sde.prior_log_prob if terminal is None else terminal
    change = cast(Array, change)
    value, count = end(latent) + jnp.mean(change, axis=0), change.shape[0]
    spread = jnp.std(change, axis=0, ddof=1) / np.sqrt(count) if count > 1 else jnp.full(x.shape[:1], jnp.nan, x.dtype)
    error = jnp.zeros(x.shape[:1], x.dtype) if isinstance(divergence, ExactTrace) else spread
    return value, LikelihoodInfo(latent, error, stats["evaluations"], stats["result"])


class BitsPerDim(eqx.Module):
    """Bits per dimension: `per_image`, shape `(images,)`, their `mean`, and its `standard_error` over the images."""

    per_image: Float[np.ndarray, " images"]
    mean: float
    standard_error: float


def bits_per_dim(
    key: Key[Array, ""],
    process: ProbabilityFlow,
    grey: Integer[np.ndarray, "images ..."],
    *,
    levels: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    t_min: float = 1e-5,
    draws: int = 1,
    batch_size: int = 256,
    **arguments: Any,
) -> BitsPerDim:
    r"""Bits per dimension of integer images, by uniform dequantisation.

    A grey level $g \in \{0, \ldots, L - 1\}$ becomes $x = \mathrm{low} + (\mathrm{high} - \mathrm{low}) (g + u)/L$, $u \sim U[0, 1)$,
    and $-\log_2 p(x)/D + \log_2(L/(\mathrm{high} - \mathrm{low}))$ bounds the code length of g from above, in the mean over u:
    the offset is 7 for 256 levels in [-1, 1], $\log_2(17/2)$ for 17. Theis et al. (2016), section 3.1,
    https://arxiv.org/abs/1511.01844. The density is that at `t_min`, taken for the data's.

    `grey`: integers of shape `(images, *event)`, each counted, whatever the batch size; `process.condition`, if any, has
    one entry per image. `draws`: dequantisations per image, averaged. `arguments` as in `log_prob`. Image i draws from
    `fold_in(key, i)`. Errors: values outside the levels.
    """
    grey = np.asarray(grey)
    check_count(levels=levels, draws=draws, batch_size=batch_size)
    check_increasing(low=low, high=high)
    if grey.dtype.kind not in "iu" or grey.size == 0 or grey.min() < 0 or grey.max() >= levels:
        raise ValueError(
            f"grey has dtype {grey.dtype}, shape {grey.shape} and values in [{grey.min(initial=0)}, {grey.max(initial=0)}]; "
            f"accepted: integers in [0, {levels - 1}], at least one."
        )
    n, offset = len(grey), np.log2(levels / (high - low))
    arguments = {"rtol": 1e-5, "atol": 1e-5, "grid": np.array([process.sde.t_max, t_min]), **arguments}
    bits = np.zeros((draws, n))
    for draw in range(draws):
        keys = sample_keys(jax.random.fold_in(key, draw), n)
        for start in range(0, n, batch_size):
            chosen = np.minimum(np.arange(start, start + min(batch_size, n)), n - 1)  # the last batch repeats an image
            alone = process.given(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], process.condition))
            x = low + (high - low) * _dequantised(keys[chosen], grey[chosen]) / levels
            probe_keys = jax.vmap(jax.random.fold_in, (0, None))(keys[chosen], 1)
            log_p = np.asarray(log_prob(alone, x, key=probe_keys, **arguments))
            bits[draw, chosen] = -log_p / (event_size(grey.shape) * np.log(2.0)) + offset
    per_image = bits.mean(axis=0)
    error = float(per_image.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return BitsPerDim(per_image, float(per_image.mean()), error)


def check_flow(process: ProbabilityFlow, user: str) -> None:
    if not isinstance(process, AbstractReverseProcess) or process.stochastic:
        raise TypeError(
            f"process = {process!r} is not accepted by {user}, which follows the flow both ways; it must be a "
            "ProbabilityFlow."
        )


def check_forward_solver(solver: diffrax.AbstractSolver, process: ProbabilityFlow) -> None:
    """Running forwards is an ODE of its own: diffrax's ODE solvers take it, ours step backwards only."""
    if isinstance(solver, (AbstractReverseSolver, *IMEX)) or not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(
            f"solver = {solver!r} is not accepted here; accepted: diffrax's ODE solvers, such as Tsit5, Dopri8, Kvaerno5."
        )
    check_diffrax_solver(solver, process)


def integrate_forwards(
    process: ProbabilityFlow,
    x: State,
    times: grids.Grid,
    solver: diffrax.AbstractSolver,
    controller: diffrax.PIDController | None,
    max_steps: int,
) -> State:
    """The state at the grid's start of the flow that passes through `x` at its end."""
    check_forward_solver(solver, process)
    clock = as_clock(times[::-1].copy(), x.dtype)
    latent, _, stats = _integrate(as_arrays(process), x, None, clock, solver, controller, None, max_steps)
    check_success(stats["success"], stats["result"], stats["steps"], max_steps)
    return latent


@eqx.filter_jit
def _integrate(
    process: ProbabilityFlow,
    x: State,
    key: Key[Array, "..."] | None,
    clock: Float[Array, " steps_plus_1"],
    solver: diffrax.AbstractSolver,
    controller: diffrax.PIDController | None,
    divergence: AbstractDivergence | None,
    max_steps: int,
) -> tuple[State, Float[Array, "probes batch"] | None, dict[str, Any]]:
    """Each sample alone, in increasing time; the state is `(x, integral of the divergence)`."""
    keys = sample_keys(key, x.shape[0]) if key is not None and key.ndim == 0 else key
    probes = None if divergence is None else divergence.probes(keys, x)

    def one(x: State, probe: Any, condition: Any) -> diffrax.Solution:
        alone = process.given(jax.tree.map(lambda leaf: leaf[None], condition))
        probe = None if probe is None else probe[:, None]
        count = 1 if probe is None else probe.shape[0]
        return diffrax.diffeqsolve(
            diffrax.ODETerm(_flow(divergence)),
            with_root_tolerance(solver, x.dtype) if controller is None else solver,
            clock[0],
            clock[-1],
            None if controller is None else FIRST_STEP * (clock[-1] - clock[0]),
            (x[None], None if divergence is None else jnp.zeros((count, 1), x.dtype)),
            args=(alone, probe),
            stepsize_controller=diffrax.StepTo(clock) if controller is None else controller,
            max_steps=clock.shape[0] - 1 if controller is None else max_steps,
            throw=False,
        )

    solution = jax.vmap(one, (0, None if probes is None else 1, 0))(x, probes, process.condition)
    latent, change = cast(tuple[Array, Any], solution.ys)
    steps = solution.stats["num_steps"]
    evaluations = total_evaluations(cost(solver), steps, 0)
    success = diffrax.is_successful(solution.result)
    stats = {"evaluations": evaluations, "success": success, "result": solution.result, "steps": steps}
    return latent[:, 0, 0], None if change is None else change[:, 0, :, 0].T, stats


def _flow(divergence: AbstractDivergence | None) -> Callable[..., Any]:
    """The vector field of `(x, integral of the divergence)`; of x alone where no divergence is asked for."""

    def field(t: Any, state: Any, args: Any) -> Any:
        process, probe = args
        if divergence is None:
            return process.drift(state[0], t), None
        return divergence(lambda x: process.drift(x, t), state[0], probe)

    return field


def _quadratic_forms(
    velocity: Callable[[State], State], x: State, probes: State | None
) -> tuple[State, Float[Array, "probes batch"]]:
    assert probes is not None
    value, tangent = jax.linearize(velocity, x)
    return value, jax.vmap(lambda probe: sum_event(tangent(probe) * probe))(probes)


def _dequantised(keys: PRNGKeys, grey: Integer[np.ndarray, "batch ..."]) -> State:
    uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), grey.shape[1:]))(keys)
    return jnp.asarray(grey).astype(uniform.dtype) + uniform
