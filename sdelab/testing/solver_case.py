"""A solver with the process and the data on which it is checked."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab import grids
from sdelab._typing import State, Time
from sdelab.exact import GaussianMixture
from sdelab.reverse import AbstractReverseProcess, ProbabilityFlow, ReverseSDE
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.base import AbstractReverseSolver
from sdelab.solvers.table import claimed_order
from sdelab.testing.order import draws_of, two_components


class ScaledScore(eqx.Module):
    """A score with one parameter, to differentiate by."""

    score: Callable[[State, Time], State]
    scale: Float[Array, ""]

    def __call__(self, x: State, t: Time) -> State:
        return self.scale.astype(x.dtype) * self.score(x, t)


class ObservedScore(eqx.Module):
    """A score that calls `traced` when it is traced and `called` when it is evaluated."""

    score: Callable[[State, Time], State]
    traced: Callable[[], None] = eqx.field(static=True)
    called: Callable[[], None] = eqx.field(static=True)

    def __call__(self, x: State, t: Time) -> State:
        self.traced()
        jax.debug.callback(self.called)
        return self.score(x, t)


@dataclasses.dataclass(frozen=True)
class SolverCase:
    """A solver on one kind of process, `sde`, and the relative bias that its moments may have."""

    solver: diffrax.AbstractSolver
    kind: Literal["deterministic", "stochastic"]
    sde: AbstractAffineSDE
    bias: float

    @property
    def claimed(self) -> int | None:
        return claimed_order(self.solver, self.kind)

    @property
    def own(self) -> bool:
        return isinstance(self.solver, AbstractReverseSolver)

    @property
    def title(self) -> str:
        """What stands behind the name of a finding where a solver is for both kinds of process."""
        return "" if self.own else f", {self.kind}"

    def process(self, score: Any) -> AbstractReverseProcess:
        return ProbabilityFlow(self.sde, score) if self.kind == "deterministic" else ReverseSDE(self.sde, score)

    def mixture_process(self) -> AbstractReverseProcess:
        return self.process(two_components().score(self.sde))

    def states(self, data: GaussianMixture, batch: int, t: float, dtype: Any = jnp.float64) -> State:
        return data.diffused(self.sde, t).sample(jax.random.key(1), batch).astype(dtype)

    def noise(self, steps: int, batch: int, dtype: Any = jnp.float64) -> Float[Array, "steps draws batch 2"] | None:
        draws = draws_of(self.solver) if self.kind == "stochastic" else 0
        if draws == 0:
            return None
        return jax.random.normal(jax.random.key(2), (steps, draws, batch, 2), dtype)

    def grid(self, steps: int) -> grids.Grid:
        return grids.log_snr(self.sde, steps, t_min=max(self.sde.t_min, 1e-5))


def deviation(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """Largest error of mean and covariance, in units of the standard deviations."""
    std = np.sqrt(np.diag(covariance))
    first = np.abs(x.mean(0) - mean) / std
    second = np.abs(np.cov(x.T) - covariance) / np.outer(std, std)
    return float(max(first.max(), second.max()))
