import math
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import check_increasing, check_nonnegative, check_positive, is_concrete
from sdelab._typing import Scalar, State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.discretization import transition
from sdelab.solvers.wrapping import check_without_memory, check_wrapped, flow_of

LARGEST = math.sqrt(2.0) - 1.0  # of gamma: a step raises the variance by no more than its own size


class Churn(AbstractReverseSolver):
    r"""EDM's stochastic sampler: noise up from $t_0$ to $\hat t$, then one step of the flow from $\hat t$ down to $t_1$.

    With $\rho = \sigma/\alpha$ and $N$ steps, $\hat\rho = (1 + \gamma) \rho_0$ where $\gamma = \min(S_{churn}/N, \sqrt 2 - 1)$ if
    $S_{min} \le \rho_0 \le S_{max}$ and 0 otherwise, and
    $\hat x/\hat\alpha = x_0/\alpha_0 + S_{noise} \sqrt{\hat\rho^2 - \rho_0^2}\,z$. Karras et al. (2022), algorithm 2,
    https://arxiv.org/abs/2206.00364, for any affine process.

    Above $t_{max}$ there is neither process nor score, and $\gamma$ is cut down to end there: the first step from $t_{max}$ has no
    noise. Published code goes beyond; so does this on a process of larger $t_{max}$ than the grid's.
    The raised noise is the forward process itself: with $S_{noise} = 1$ the marginals are right to the order of the wrapped
    solver, however much noise there is. Evaluations a step: those of the wrapped solver. A grid may end at t = 0 if it may
    there. The amount of noise is `s_churn`'s alone, and the process a `ReverseSDE` of stochasticity 1, the default.

    Fields: `solver`, deterministic and single-step; `s_churn` >= 0, 0 for the wrapped solver alone; `s_min` < `s_max`,
    noise-to-signal ratios, in units of the data; `s_noise` > 0: more than 1 for a network that removes too much noise.
    """

    solver: AbstractReverseSolver
    s_churn: Scalar
    s_min: Scalar = 0.0
    s_max: Scalar = math.inf
    s_noise: Scalar = 1.0
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_wrapped(self.solver)
        check_nonnegative(s_churn=self.s_churn, s_min=self.s_min)
        check_increasing(s_min=self.s_min, s_max=self.s_max)
        check_positive(s_noise=self.s_noise)

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> tuple[Array, Array, Any]:
        """Scale and standard deviation of the way up, and the wrapped solver's own."""
        raised = interval.inner[0]
        rest = interval.part(raised, interval.t1, None)
        up = transition(require_affine(process.sde, "Churn"), interval.t0, raised)
        return *up, self.solver.numbers(flow_of(process), rest, past)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        scale, std, own = self.numbers_of(process, interval)
        x = scale * x + self.s_noise * std * interval.noise[0]
        rest = interval.part(interval.inner[0], interval.t1, own)
        return self.solver.advance(flow_of(process), x, rest, memory)

    def inner_times(
        self, process: AbstractReverseProcess, starts: Float[Array, " steps"], ends: Float[Array, " steps"]
    ) -> Float[Array, "steps inner"]:
        raised = self.raised(process, starts)
        return jnp.concatenate([raised[:, None], self.solver.inner_times(flow_of(process), raised, ends)], axis=1)

    def raised(self, process: AbstractReverseProcess, starts: Float[Array, " steps"]) -> Float[Array, " steps"]:
        r"""The times $\hat t$ of all steps of a grid, from the times $t_0$ at which they start."""
        sde = require_affine(process.sde, "Churn")
        levels = sde.log_snr(starts)
        ratio = jnp.exp(-0.5 * levels)
        room = 0.5 * (levels - sde.log_snr(jnp.asarray(sde.t_max, starts.dtype)))
        growth = jnp.minimum(jnp.log1p(jnp.minimum(self.s_churn / starts.shape[0], LARGEST)), room)
        churned = (ratio >= self.s_min) & (ratio <= self.s_max) & (growth > 0.0)
        times = sde.log_snr_inverse(levels - 2.0 * jnp.where(churned, growth, 0.0)).astype(starts.dtype)
        return jnp.where(churned, jnp.maximum(times, starts), starts)

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind("Churn", "stochastic", process)
        require_affine(process.sde, "Churn")
        level = process.noise_level()
        if is_concrete(level) and float(level) != 1.0:
            raise ValueError(
                f"stochasticity = {level} is not accepted by Churn, whose noise is that of s_churn; accepted: 1, the default."
            )
        self.solver.check(flow_of(process))

    def initial_memory(self, process: AbstractReverseProcess, x: State) -> None:
        check_without_memory("Churn", self.solver, self.solver.initial_memory(flow_of(process), x))

    def claimed_order(self) -> int | None:
        faithful = is_concrete(self.s_noise) and float(self.s_noise) == 1.0
        return self.solver.claimed_order() if faithful else None

    def evaluations(self, steps: int, to_data: bool) -> int:
        return self.solver.evaluations(steps, to_data)

    def draws(self) -> int:
        return 1 + self.solver.draws()
