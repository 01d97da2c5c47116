from typing import Any, cast

import diffrax
import equinox as eqx
import numpy as np
from jaxtyping import Array, Key

from sdelab import grids
from sdelab._checks import check_instance, check_positive, concrete_time
from sdelab._compile import as_arrays
from sdelab._typing import PRNGKeys, State
from sdelab.arguments import check_start
from sdelab.exact.gaussian import Gaussian
from sdelab.geometry.gaussian_flow import GaussianFlow
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.sampling import SampleInfo, draw_prior, sample_with_info
from sdelab.sde import AbstractAffineSDE
from sdelab.solvers.noise import sample_keys


class GaussianWarmStart(eqx.Module):
    r"""Skips the first part of sampling: from `t_max` to `t` by the closed-form flow of a Gaussian, at no evaluation.

    While the noise is larger than the structure of the data, their score is nearly that of the Gaussian with their
    mean and covariance, whose flow `GaussianFlow` solves exactly. For Gaussian data the warm start is exact; for others
    its error grows as `t` falls towards the data, and is not undone later. Any solver continues from `t`, by the flow
    or by the reverse SDE. Wang and Vastola (2023), https://arxiv.org/abs/2303.02490, who call it teleportation.

        warm_start = GaussianWarmStart(full_gaussian(data), t=0.6)
        grid = grids.log_snr(sde, 20, t_max=warm_start.t)
        x, info = warm_start.sample_with_info(key, flow, (64, 8, 8, 1), solver=solvers.Heun(), grid=grid)

    Fields: `gaussian`, such as `full_gaussian(data)`; `t`, a time in (0, t_max], at which the solver takes over.
    """

    gaussian: Gaussian
    t: float = eqx.field(converter=concrete_time, static=True)

    def __check_init__(self):
        check_instance(Gaussian, gaussian=self.gaussian)
        check_positive(t=self.t)

    def __call__(self, sde: AbstractAffineSDE, x_T: State) -> State:
        """The states at `t`, from those at `t_max`. Errors: a process without a kernel, `t` beyond its end."""
        flow = GaussianFlow(require_affine(sde, "GaussianWarmStart"), self.gaussian)
        if self.t > sde.t_max * (1 + 1e-6):
            raise ValueError(f"t = {self.t} lies beyond the start of sampling; accepted: t in (0, {sde.t_max}].")
        return _jump(as_arrays(flow), x_T, np.asarray([sde.t_max, min(self.t, sde.t_max)]))

    def sample(
        self, key: Key[Array, "..."] | None, process: AbstractReverseProcess, shape_or_x_T: Any, **arguments: Any
    ) -> State:
        """`sample_with_info`, with the same arguments, without the information."""
        return self.sample_with_info(key, process, shape_or_x_T, **arguments)[0]

    def sample_with_info(
        self,
        key: Key[Array, "..."] | None,
        process: AbstractReverseProcess,
        shape_or_x_T: tuple[int, ...] | State,
        *,
        solver: diffrax.AbstractSolver,
        grid: grids.GridLike | None = None,
        **arguments: Any,
    ) -> tuple[State, SampleInfo]:
        """`sdelab.sample_with_info`, warm-started: the same arguments, starts and noise for the same key.

        `shape_or_x_T`: the shape, to start from the prior, or the states at `t_max`. `grid` begins at `t`, as
        `grids.log_snr(sde, n, t_max=t)` does; with tolerances it may be left out, and the interval is from `t` to `t_min`.
        Errors: a grid that begins elsewhere; neither grid nor tolerances.
        """
        times = self._grid(process, grid, arguments)
        start, _ = check_start(key, process, shape_or_x_T, replayed=arguments.get("noise") is not None)
        if isinstance(start, tuple):
            assert key is not None  # checked above
            keys = sample_keys(key, start[0]) if key.ndim == 0 else key
            start = draw_prior(process, cast(PRNGKeys, keys), start[1:])
        x_t = self(require_affine(process.sde, "GaussianWarmStart"), start)
        return sample_with_info(key, process, x_t, solver=solver, grid=times, **arguments)

    def _grid(
        self, process: AbstractReverseProcess, grid: grids.GridLike | None, arguments: dict[str, Any]
    ) -> grids.Grid:
        if grid is None:
            if arguments.get("rtol") is None and arguments.get("atol") is None:
                raise ValueError(
                    f"grid = None and no tolerances; accepted: a grid from t = {self.t}, such as "
                    f"grids.log_snr(sde, n, t_max={self.t}), or rtol and atol."
                )
            grid = np.array([self.t, process.sde.t_min])
        times = grids.check_grid(grid, process.sde)
        if not np.isclose(times[0], self.t, rtol=1e-6, atol=0.0):
            raise ValueError(f"grid starts at t = {times[0]}; accepted: a grid from the warm start's t = {self.t}.")
        return times


@eqx.filter_jit
def _jump(flow: GaussianFlow, x: State, times: Array | np.ndarray) -> State:
    return flow(x, times[0], times[1])
