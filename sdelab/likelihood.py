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
from sdelab._broadcast import event_size
from sdelab._callable import with_arguments_of
from sdelab._checks import check_count, check_increasing, check_instance
from sdelab._compile import as_arrays
from sdelab._typing import PRNGKeys, State
from sdelab.adjoint import check_adjoint
from sdelab.arguments import (
    as_clock,
    check_key,
    check_starts_at_prior,
    check_states,
    plan_steps,
)
from sdelab.bounds import AbstractResidual as AbstractResidual
from sdelab.bounds import NoResidual as NoResidual
from sdelab.bounds import Reconstruction as Reconstruction
from sdelab.bounds import UniformInLogSNR as UniformInLogSNR
from sdelab.bounds import UniformInTime as UniformInTime
from sdelab.bounds import VariationalBound as VariationalBound
from sdelab.bounds import variational_bound as variational_bound
from sdelab.divergence import AbstractDivergence as AbstractDivergence
from sdelab.divergence import ExactTrace as ExactTrace
from sdelab.divergence import FixedProbes as FixedProbes
from sdelab.divergence import GaussianHutchinson as GaussianHutchinson
from sdelab.divergence import Hutchinson as Hutchinson
from sdelab.divergence import HutchPlusPlus as HutchPlusPlus
from sdelab.forward import ForwardPlan, check_forward_solver, check_starts_above_data, solve_forwards
from sdelab.forward import check_flow as check_flow
from sdelab.forward import integrate_forwards as integrate_forwards
from sdelab.integration import Joint, PerSample
from sdelab.reverse import ProbabilityFlow
from sdelab.solvers.noise import sample_keys

LogDensity = Callable[[State], Float[Array, " batch"]]


class LikelihoodInfo(eqx.Module):
    """`latent`, the state at `t_max`; `standard_error` of the divergence in nats per sample, 0 for an exact trace and
    NaN for a single probe; `evaluations` per sample; diffrax's `result`."""

    latent: State
    standard_error: Float[Array, " batch"]
    evaluations: Int[Array, " batch"] | None
    result: Any


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
    error_control: Joint | PerSample = PerSample(),
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(),
    max_steps: int = 4096,
) -> tuple[Float[Array, " batch"], LikelihoodInfo]:
    """Log-density of `x` at the end of the grid (default `t_min`), in nats, shape `(batch,)`, and what it cost.

    `divergence`: `ExactTrace()`, `Hutchinson()`, `GaussianHutchinson()`, `HutchPlusPlus()`; a random one needs a `key`,
    one or one per sample. `terminal`: the log-density at `t_max`, by default the process's prior. `solver`: a diffrax ODE
    solver, default `diffrax.Tsit5()`; `grid`, `rtol`, `atol`, `max_steps` as in `sample` (default tolerance 1e-5), and
    `error_control`: steps for each sample alone, or `Joint()`; implicit solvers go alone in either case. `adjoint`:
    diffrax's, for gradients with respect to `x` and whatever numbers the process holds (its condition, the network's
    parameters, the SDE's); `diffrax.BacksolveAdjoint()` with tolerances only.
    The process's condition holds for the likelihood too. Errors: a process that is not a probability flow, a random
    divergence without a key, a grid that ends where sigma = 0, a solve that exhausts its steps.
    """
    check_flow(process, "log_prob")
    check_instance(AbstractDivergence, divergence=divergence)
    x = check_states(process, x)
    check_key(key, x.shape[0], needed=False)
    if divergence.stochastic and key is None:
        raise ValueError(f"key = None is not accepted with divergence = {divergence!r}, which draws probes.")
    solver = diffrax.Tsit5() if solver is None else solver
    check_forward_solver(solver, process)
    check_adjoint(adjoint, solver, process)
    times, controller = plan_steps(process, solver, grid, rtol, atol, x.dtype)
    check_starts_above_data(process, times)
    if terminal is None:
        check_starts_at_prior(times, process.sde, "the log-density there as terminal")
    plan = ForwardPlan(as_clock(times[::-1].copy(), x.dtype), solver, controller, error_control, adjoint, max_steps)
    latent, change, stats = solve_forwards(process, x, key, plan, divergence)
    end = process.sde.prior_log_prob if terminal is None else terminal
    change = cast(Array, change)
    value, count = end(latent) + jnp.mean(change, axis=0), change.shape[0]
    spread = jnp.std(change, axis=0, ddof=1) / np.sqrt(count) if count > 1 else jnp.full(x.shape[:1], jnp.nan, x.dtype)
    error = jnp.zeros(x.shape[:1], x.dtype) if divergence.exact else spread
    return value, LikelihoodInfo(latent, error, stats["evaluations"], stats["result"])


@with_arguments_of(log_prob_with_info)
def log_prob(*args: Any, **kwargs: Any) -> Float[Array, " batch"]:
    """Log-density at the end of sampling in nats, shape `(batch,)`: `log_prob_with_info`, without the information."""
    return log_prob_with_info(*args, **kwargs)[0]


class AbstractDrawAverage(eqx.Module):
    """How the code lengths of several dequantisations of one image become one number."""

    @abc.abstractmethod
    def __call__(self, nats: Float[np.ndarray, "draws images"]) -> Float[np.ndarray, " images"]:
        """One upper bound of the code length per image, from one per draw, in nats."""

    @abc.abstractmethod
    def check(self, divergence: AbstractDivergence) -> None:
        """Errors: a divergence with which the average is not a bound."""


class MeanOfDraws(AbstractDrawAverage):
    """The mean over the draws: the same bound for any number of them, with less scatter."""

    def __call__(self, nats: Float[np.ndarray, "draws images"]) -> Float[np.ndarray, " images"]:
        return nats.mean(axis=0)

    def check(self, divergence: AbstractDivergence) -> None:
        pass


class LogMeanExp(AbstractDrawAverage):
    r"""The importance-weighted bound $-\log \frac1K \sum_k p_k$ of K draws, tighter as K grows.

    For one draw it is the mean of draws, for infinitely many the code length $-\log P(g)$ itself. Burda et al. (2016),
    eq. 8, https://arxiv.org/abs/1509.00519. Errors: a random divergence, whose noise the exponential would turn into
    probability: the result would bound nothing.
    """

    def __call__(self, nats: Float[np.ndarray, "draws images"]) -> Float[np.ndarray, " images"]:
        least = nats.min(axis=0)
        return least - np.log(np.mean(np.exp(least[None] - nats), axis=0))

    def check(self, divergence: AbstractDivergence) -> None:
        if not divergence.exact:
            raise ValueError(
                f"divergence = {divergence!r} is not accepted with average = LogMeanExp(): the noise of the trace would "
                "count as probability; accepted: ExactTrace(), or average = MeanOfDraws()."
            )


class BitsPerDim(eqx.Module):
    r"""Bits per dimension: `per_image`, shape `(images,)`, their `mean`, and its `standard_error` over the images.

    The terms, means over draws: `density`, $-\log_2 p_{t_{min}}/D$ along the flow; `residual`, the way from there to the
    data, 0 without one; both of shape `(images,)`; and the `offset` of the dequantisation. They add up to `per_image`
    with `MeanOfDraws`, and to more with `LogMeanExp`.
    """

    per_image: Float[np.ndarray, " images"]
    mean: float
    standard_error: float
    density: Float[np.ndarray, " images"]
    residual: Float[np.ndarray, " images"]
    offset: float


def bits_per_dim(
    key: Key[Array, ""],
    process: ProbabilityFlow,
    grey: Integer[np.ndarray, "images ..."],
    *,
    levels: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    t_min: float = 1e-5,
    residual: AbstractResidual = Reconstruction(),
    draws: int = 1,
    average: AbstractDrawAverage = MeanOfDraws(),
    batch_size: int = 256,
    **arguments: Any,
) -> BitsPerDim:
    r"""Bits per dimension of integer images, by uniform dequantisation.

    A grey level $g \in \{0, \ldots, L - 1\}$ becomes $x = \mathrm{low} + (\mathrm{high} - \mathrm{low}) (g + u)/L$, $u \sim U[0, 1)$,
    and $-\log_2 p(x)/D + \log_2(L/(\mathrm{high} - \mathrm{low}))$ bounds the code length of g from above, in the mean over u:
    the offset is 7 for 256 levels in [-1, 1], $\log_2(17/2)$ for 17. Theis et al. (2016), section 3.1,
    https://arxiv.org/abs/1511.01844. The flow knows the density at `t_min` (or where a given grid ends) only.
    `residual` is the way from there to the data: with `Reconstruction()` the density is that at a noisy copy of x, the
    reconstruction term is added, and the figure is a bound for the data; with `NoResidual()` it is the density of
    $p_{t_{min}}$ at x itself, the published figure.

    `grey`: integers of shape `(images, *event)`, each counted, whatever the batch size; `process.condition`, if any, has
    one entry per image. `draws`: dequantisations (and noisy copies) per image, combined by `average`, `MeanOfDraws()`
    or `LogMeanExp()`. `arguments` as in `log_prob`. Draw k of image i takes the key `fold_in(fold_in(key, k), i)`.
    Errors: values outside the levels; a residual for a process without a kernel.
    """
    check_flow(process, "bits_per_dim")
    check_instance(AbstractResidual, residual=residual)
    check_instance(AbstractDrawAverage, average=average)
    average.check(arguments.get("divergence", ExactTrace()))
    grey = np.asarray(grey)
    check_count(draws=draws, batch_size=batch_size)
    _check_grey(grey, levels, low, high)
    scale = {"levels": levels, "low": low, "high": high}
    n, nats = len(grey), np.zeros((2, draws, len(grey)))
    for draw in range(draws):
        keys = sample_keys(jax.random.fold_in(key, draw), n)
        for start in range(0, n, batch_size):
            chosen = np.minimum(np.arange(start, start + min(batch_size, n)), n - 1)  # the last batch repeats an image
            alone = process.given(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], process.condition))
            terms = code_length(keys[chosen], alone, grey[chosen], **scale, t_min=t_min, residual=residual, **arguments)
            nats[:, draw, chosen] = [np.asarray(term) for term in terms]
    unit, offset = event_size(grey.shape) * np.log(2.0), float(np.log2(levels / (high - low)))
    per_image = average(nats.sum(axis=0)) / unit + offset
    error = float(per_image.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    terms = nats.mean(axis=1) / unit
    return BitsPerDim(per_image, float(per_image.mean()), error, terms[0], terms[1], offset)


def _check_grey(grey: np.ndarray, levels: int, low: float, high: float) -> None:
    check_count(levels=levels)
    check_increasing(low=low, high=high)
    if grey.dtype.kind not in "iu" or grey.size == 0 or grey.min() < 0 or grey.max() >= levels:
        raise ValueError(
            f"grey has dtype {grey.dtype}, shape {grey.shape} and values in [{grey.min(initial=0)}, {grey.max(initial=0)}]; "
            f"accepted: integers in [0, {levels - 1}], at least one."
        )


def code_length(
    keys: PRNGKeys,
    process: ProbabilityFlow,
    grey: Integer[Array, "batch ..."] | Integer[np.ndarray, "batch ..."],
    *,
    levels: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    t_min: float = 1e-5,
    residual: AbstractResidual = Reconstruction(),
    **arguments: Any,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    r"""One draw of `bits_per_dim` for one batch, in nats: $-\log p$ at the end of the grid, and the residual.

    `keys`, one per image; the rest as in `bits_per_dim`, which is the mean over draws and images of their sum, over
    $D \log 2$, and the offset. Values stay on their devices, and are not checked.
    """
    if arguments.get("grid") is None:
        arguments["grid"] = np.array([process.sde.t_max, t_min])
    arguments = {"rtol": 1e-5, "atol": 1e-5, **arguments}
    x = low + (high - low) * _dequantised(keys, grey) / levels
    probes, noise = (jax.vmap(jax.random.fold_in, (0, None))(keys, use) for use in (1, 2))
    end = jnp.asarray(np.asarray(arguments["grid"], np.float64)[-1], x.dtype)
    x, rest = _to_the_end(residual, noise, as_arrays(process), x, end)
    return -log_prob(process, x, key=probes, **arguments), rest


@eqx.filter_jit
def _to_the_end(
    residual: AbstractResidual, keys: PRNGKeys, process: ProbabilityFlow, x: State, t: Float[Array, ""]
) -> tuple[State, Float[Array, " batch"]]:
    return residual(keys, process, x, t)


def _dequantised(keys: PRNGKeys, grey: Integer[Array, "batch ..."] | Integer[np.ndarray, "batch ..."]) -> State:
    uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), grey.shape[1:]))(keys)
    return jnp.asarray(grey).astype(uniform.dtype) + uniform
