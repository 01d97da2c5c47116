from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import is_concrete
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.discretization import transition
from sdelab.solvers.wrapping import check_without_memory, check_wrapped, flow_of


class AncestralStep(AbstractReverseSolver):
    r"""Any deterministic step made ancestral: the flow from $t_0$ past $t_1$ down to $t_{down}$, then noise up to $t_1$.

    With $\rho = \sigma/\alpha$ and $c$ the stochasticity of the process, between 0 and 1,
    $\rho_{up}^2 = c^2 \rho_1^2 (1 - \rho_1^2/\rho_0^2)$, $\rho_{down}^2 = \rho_1^2 - \rho_{up}^2$ and
    $x_1/\alpha_1 = x_{down}/\alpha_{down} + \rho_{up} z$. Around `DDIM` it is `StochasticDDIM`, and `Ancestral` at $c = 1$:
    Song et al. (2020), eq. 16, https://arxiv.org/abs/2010.02502. Around `DPMSolver2` and `DPMSolverPlusPlus2S` it is what
    is known as DPM2 and DPM++ 2S ancestral (https://github.com/crowsonkb/k-diffusion, sampling.py).

    The noise is the forward process itself, and the marginals are right to the order of the wrapped solver. Evaluations a
    step: those of the wrapped solver, which may evaluate below the grid's end. Where the process has no noise level so low
    (VE, whose $\sigma(0) > 0$) the flow goes down to t = 0, and the noise is what brings it up from there.

    Fields: `solver`, deterministic and single-step.
    """

    solver: AbstractReverseSolver
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_wrapped(self.solver)

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> tuple[Array, Array, Any]:
        """Scale and standard deviation of the way up, and the wrapped solver's own."""
        down = interval.inner[0]
        rest = interval.part(interval.t0, down, None)
        up = transition(require_affine(process.sde, "AncestralStep"), down, interval.t1)
        return *up, self.solver.numbers(flow_of(process), rest, past)

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        scale, std, own = self.numbers_of(process, interval)
        rest = interval.part(interval.t0, interval.inner[0], own)
        x_mean = scale * self.solver.advance(flow_of(process), x, rest, memory).x
        return Step(x_mean + std * interval.noise[0], x_mean)

    def inner_times(
        self, process: AbstractReverseProcess, starts: Float[Array, " steps"], ends: Float[Array, " steps"]
    ) -> Float[Array, "steps inner"]:
        down = self.lowered(process, starts, ends)
        return jnp.concatenate([down[:, None], self.solver.inner_times(flow_of(process), starts, down)], axis=1)

    def lowered(
        self, process: AbstractReverseProcess, starts: Float[Array, " steps"], ends: Float[Array, " steps"]
    ) -> Float[Array, " steps"]:
        r"""The times $t_{down}$ of all steps of a grid; its last one where that has $\sigma = 0$."""
        sde, c = require_affine(process.sde, "AncestralStep"), process.noise_level()
        noisy = (sde.sigma(ends) > 0.0) & (jnp.asarray(c) > 0.0)
        level0, level1 = sde.log_snr(starts), sde.log_snr(jnp.where(noisy, ends, starts))
        # 1 - sigma_up^2 / sigma_1^2 and its logarithm, exact for the smallest steps, and for the largest ones too
        gap = level0 - level1
        small = jnp.log1p(c**2 * jnp.expm1(jnp.maximum(gap, -1.0)))
        kept = jnp.where(gap > -1.0, small, jnp.log(1.0 - c**2 + c**2 * jnp.exp(gap)))
        lowest = jax.lax.stop_gradient(sde.log_snr(jnp.zeros((), starts.dtype)))
        times = sde.log_snr_inverse(jnp.minimum(level1 - kept, lowest)).astype(starts.dtype)
        return jnp.where(noisy, jnp.minimum(times, ends), ends)

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind("AncestralStep", "stochastic", process)
        require_affine(process.sde, "AncestralStep")
        level = process.noise_level()
        if is_concrete(level) and not float(level) <= 1.0:
            raise ValueError(f"stochasticity = {level} is not accepted by AncestralStep; it must be in [0, 1].")
        self.solver.check(flow_of(process))

    def initial_memory(self, process: AbstractReverseProcess, x: State) -> None:
        check_without_memory("AncestralStep", self.solver, self.solver.initial_memory(flow_of(process), x))

    def claimed_order(self) -> int | None:
        return self.solver.claimed_order()

    def evaluations(self, steps: int, to_data: bool) -> int:
        return self.solver.evaluations(steps, to_data)

    def draws(self) -> int:
        return 1 + self.solver.draws()
