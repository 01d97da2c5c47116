"""What a warm start saves: evaluations with and without it, at equal error."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import diffrax
import numpy as np
from jaxtyping import Float

from sdelab import grids
from sdelab._checks import check_positive
from sdelab._typing import State
from sdelab.geometry.warm_start import GaussianWarmStart
from sdelab.reverse import ProbabilityFlow
from sdelab.sampling import SampleInfo, sample_with_info


@dataclasses.dataclass(frozen=True)
class ErrorCurve:
    """Errors of runs of one solver, in the order of their evaluations, a sample each."""

    evaluations: tuple[float, ...]
    errors: tuple[float, ...]

    def evaluations_at(self, error: float) -> float:
        """How many evaluations the error takes, interpolated between runs in the logarithms.

        Those of the first run where it is better already (an upper bound), NaN where no run is good enough.
        """
        check_positive(error=error)
        good = [index for index, reached in enumerate(self.errors) if reached <= error]
        if not good:
            return math.nan
        last = good[0]
        if last == 0 or self.errors[last] == 0:
            return self.evaluations[last]
        errors, evaluations = np.log(self.errors[last - 1 : last + 1]), np.log(self.evaluations[last - 1 : last + 1])
        part = (math.log(error) - errors[0]) / (errors[1] - errors[0])
        return float(np.exp(evaluations[0] + part * (evaluations[1] - evaluations[0])))


@dataclasses.dataclass(frozen=True)
class Saving:
    """A solver from `t_max` (`cold`) and from the warm start (`warm`)."""

    cold: ErrorCurve
    warm: ErrorCurve

    def saved_at(self, error: float) -> float:
        """Evaluations saved at equal error; NaN where one of the two does not reach it."""
        return self.cold.evaluations_at(error) - self.warm.evaluations_at(error)

    def saved(self) -> tuple[float, ...]:
        """Evaluations saved at the error of each cold run; NaN where the warm start does not reach it."""
        return tuple(
            needed - self.warm.evaluations_at(error) if error > 0 else math.nan
            for needed, error in zip(self.cold.evaluations, self.cold.errors, strict=True)
        )


def measure_saving(
    process: ProbabilityFlow,
    x_T: State,
    truth: State | Float[np.ndarray, "batch ..."],
    warm_start: GaussianWarmStart,
    *,
    solver: diffrax.AbstractSolver,
    steps: Sequence[int],
    rule: Callable[..., grids.Grid] = grids.log_snr,
) -> Saving:
    """Runs a deterministic solver in each number of `steps` from `t_max`, and from the warm start, with the same `rule`.

    `x_T`: states at `t_max`, `(batch, *event)`; `truth`: where the flow carries them at `t_min`, exactly or by a fine solve,
    in any precision.
    An error is the root mean square over samples and dimensions. `rule`: a function of `sdelab.grids`,
    `rule(sde, n, t_max=t)`; both grids of one length share one compiled program.
    Errors: a stochastic process; `truth` of another shape; a solver whose evaluations are not counted.
    """
    if process.stochastic:
        raise TypeError(f"process = {process!r} has no paths to compare; accepted: a ProbabilityFlow.")
    if x_T.shape != truth.shape:
        raise ValueError(f"truth has shape {truth.shape}; accepted: that of x_T, {x_T.shape}.")
    counts = sorted(set(steps))
    if not counts:
        raise ValueError("steps is empty; accepted: at least one number of steps.")
    runs = (
        (
            sample_with_info(None, process, x_T, solver=solver, grid=rule(process.sde, n)),
            warm_start.sample_with_info(
                None, process, x_T, solver=solver, grid=rule(process.sde, n, t_max=warm_start.t)
            ),
        )
        for n in counts
    )
    cold, warm = zip(*runs, strict=True)
    return Saving(_curve(cold, truth), _curve(warm, truth))


def _curve(runs: Sequence[tuple[State, SampleInfo]], truth: State | Float[np.ndarray, "batch ..."]) -> ErrorCurve:
    costs, errors = [], []
    for x, info in runs:
        if info.evaluations is None:
            raise ValueError("solver does not count its evaluations, as implicit ones; accepted: an explicit solver.")
        costs.append(float(np.mean(np.asarray(info.evaluations))))
        errors.append(math.sqrt(np.mean((np.asarray(x, np.float64) - np.asarray(truth, np.float64)) ** 2)))
    return ErrorCurve(tuple(costs), tuple(errors))
