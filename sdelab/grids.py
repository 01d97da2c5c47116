r"""Time grids: decreasing arrays of `n + 1` times, the ends of `n` steps.

All are computed in float64 on the host from a concrete process, and are constants to every gradient. The default ends
are the process's `t_max` and `t_min`; `t_min = 0` is for solvers that do not divide by $\sigma(t_1)$.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float64

from sdelab._checks import check_count, check_finite, check_increasing, check_positive, is_concrete
from sdelab.reverse import check_process, require_affine
from sdelab.sde import AbstractAffineSDE, AbstractSDE

Grid = Float64[np.ndarray, " steps_plus_1"]
GridLike = ArrayLike | Sequence[float]


def uniform(sde: AbstractSDE, n: int, *, t_min: float | None = None, t_max: float | None = None) -> Grid:
    """`n` equal steps in time."""
    start, end = _interval(sde, n, t_min, t_max)
    return _pinned(start + (end - start) * np.linspace(0.0, 1.0, n + 1), start, end)


def quadratic(sde: AbstractSDE, n: int, *, t_min: float | None = None, t_max: float | None = None) -> Grid:
    r"""`n` equal steps in $\sqrt t$: steps shrink towards the data. Song et al. (2020), DDIM, appendix D.2,
    https://arxiv.org/abs/2010.02502."""
    start, end = _interval(sde, n, t_min, t_max)
    return _pinned((np.sqrt(start) + (np.sqrt(end) - np.sqrt(start)) * np.linspace(0.0, 1.0, n + 1)) ** 2, start, end)


def log_snr(sde: AbstractAffineSDE, n: int, *, t_min: float | None = None, t_max: float | None = None) -> Grid:
    r"""`n` equal steps in log-SNR. `t_min` must have $\sigma > 0$. Lu et al. (2022), section 3.3,
    https://arxiv.org/abs/2206.00927."""
    start, end = _interval(sde, n, t_min, t_max)
    levels = _host(require_affine(sde, "grids.log_snr"), _log_snr, np.array([start, end]))
    if not np.all(np.isfinite(levels)):
        raise ValueError(f"t_min = {end} has sigma = 0, where the log-SNR is infinite; accepted: t_min > 0.")
    inner = _host(sde, _log_snr_inverse, np.linspace(levels[0], levels[1], n + 1))
    return _pinned(inner, start, end)


def cosine(sde: AbstractAffineSDE, n: int, *, t_min: float | None = None, t_max: float | None = None) -> Grid:
    r"""`n` equal steps in the angle $\arctan(\sigma/\alpha)$; `t_min` = 0 is accepted.

    They are the noise levels of the cosine schedule, $\mathrm{log\_snr} = -2 \log\tan(\pi u/2)$, at equally spaced u. Nichol and
    Dhariwal (2021), eq. 17, https://arxiv.org/abs/2102.09672, without its offset.
    """
    require_affine(sde, "grids.cosine")
    return _equal_angles(sde, n, 0.0, t_min, t_max)


def shifted(
    sde: AbstractAffineSDE, n: int, *, shift: float, t_min: float | None = None, t_max: float | None = None
) -> Grid:
    r"""`n` equal steps in the angle $\arctan(e^{\mathrm{shift}/2} \sigma/\alpha)$; `t_min` = 0 is accepted.

    They are the noise levels of the shifted cosine schedule, $\mathrm{log\_snr} = -2 \log\tan(\pi u/2) + \mathrm{shift}$, at
    equally spaced u; 0 gives `cosine`, a negative shift puts more steps where there is more noise. For images of $d \times d$
    pixels the shift is $2 \log(64/d)$. Hoogeboom et al. (2023), section 3.1, https://arxiv.org/abs/2301.11093.
    """
    check_finite(shift=shift)
    require_affine(sde, "grids.shifted")
    return _equal_angles(sde, n, float(shift), t_min, t_max)


def edm(
    sde: AbstractAffineSDE, n: int, *, rho: float = 7.0, t_min: float | None = None, t_max: float | None = None
) -> Grid:
    r"""`n` steps, the first `n - 1` of them equal in $(\sigma/\alpha)^{1/\rho}$ from `t_max` to `t_min`, the last to t = 0.

    Karras et al. (2022), eq. 5, https://arxiv.org/abs/2206.00364: `n` evaluations for a one-stage method. `t_min` > 0
    must have $\sigma > 0$; solvers take the last step by an Euler step or stop with `grid[:-1]`.
    """
    check_positive(rho=rho)
    check_count(n=n)
    if n < 2:
        raise ValueError(f"n = {n} is not accepted; grids.edm needs n >= 2: its last step goes from t_min to 0.")
    start, end = _interval(sde, n, t_min, t_max)
    check_positive(t_min=end)
    levels = _host(require_affine(sde, "grids.edm"), _log_snr, np.array([start, end]))
    ends = np.exp(-0.5 * levels / rho)  # (sigma / alpha)^(1 / rho)
    ratio = ends[0] + (ends[1] - ends[0]) * np.linspace(0.0, 1.0, n)
    times = _host(sde, _log_snr_inverse, -2.0 * rho * np.log(ratio))
    return np.append(_pinned(times, start, end), 0.0)


def from_log_snr(sde: AbstractAffineSDE, levels: GridLike) -> Grid:
    """The times at which the process has the given log-SNRs, which increase: a grid by its noise levels."""
    levels = np.asarray(levels, np.float64)
    if levels.ndim != 1 or levels.size < 2 or not np.all(np.isfinite(levels)) or not np.all(np.diff(levels) > 0):
        raise ValueError(
            f"levels = {levels} is not accepted; they must be n + 1 >= 2 finite numbers that increase strictly."
        )
    times = _host(require_affine(sde, "grids.from_log_snr"), _log_snr_inverse, levels)
    return check_grid(times.copy(), sde)


def levels_of(sde: AbstractAffineSDE, grid: GridLike) -> Grid:
    """The log-SNRs of a grid, in float64: the inverse of `from_log_snr`; `inf` where sigma = 0."""
    return _host(require_affine(sde, "grids.levels_of"), _log_snr, check_grid(grid, sde))


def published(sde: AbstractSDE, n: int, *, t_min: float | None = None) -> Grid:
    """The evaluation times of score_sde, `n` equally spaced times from `t_max` to `t_min` *inclusive*, then 0.

    For the predictors with a named discretisation (`DDPM`, `SMLD`, `EulerSteps`), whose step depends on its first
    time only: in the published code the last step overshoots the data. Song et al. (2021),
    https://github.com/yang-song/score_sde, sampling.py.
    """
    start, end = _interval(sde, n, t_min, None)
    check_positive(t_min=end)
    return np.append(np.linspace(start, end, n), 0.0)


def check_grid(grid: GridLike, sde: AbstractSDE) -> Grid:
    """`grid` as float64, or an error: it must be concrete, finite, decrease strictly, and lie in `[0, t_max]`."""
    if not is_concrete(grid):
        raise TypeError("grid is traced; accepted: a concrete array of times, built outside the transformation.")
    if not is_concrete(sde.t_max):
        raise TypeError(
            "t_max of the process is traced; accepted: a static field, eqx.field(static=True), as ours have."
        )
    times = np.asarray(grid, np.float64)
    usual = times.ndim == 1 and times.size > 1 and bool((times[1:] < times[:-1]).all())
    if usual and times[-1] >= 0 and times[0] <= sde.t_max:
        return times  # known in one pass, as it is at every call of a solve
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"grid has shape {times.shape}; accepted: n + 1 >= 2 times, shape (n + 1,).")
    if not np.all(np.isfinite(times)):
        raise ValueError(f"grid = {times} is not accepted; its times must be finite.")
    if not np.all(np.diff(times) < 0):
        where = int(np.argmax(np.diff(times) >= 0))
        raise ValueError(
            f"grid must decrease strictly from noise to data; grid[{where}] = {times[where]}, "
            f"grid[{where + 1}] = {times[where + 1]}."
        )
    if times[0] > sde.t_max * (1 + 1e-6) or times[-1] < 0:
        raise ValueError(f"grid runs from {times[0]} to {times[-1]}; accepted: times in [0, {sde.t_max}].")
    return times


def _interval(sde: AbstractSDE, n: int, t_min: float | None, t_max: float | None) -> tuple[float, float]:
    check_count(n=n)
    check_process(sde)
    start = sde.t_max if t_max is None else float(t_max)
    end = sde.t_min if t_min is None else float(t_min)
    check_increasing(t_min=end, t_max=start)
    check_grid(np.array([start, end]), sde)
    return start, end


def _equal_angles(sde: AbstractAffineSDE, n: int, shift: float, t_min: float | None, t_max: float | None) -> Grid:
    start, end = _interval(sde, n, t_min, t_max)
    levels = _host(sde, _log_snr, np.array([start, end]))  # infinite at sigma = 0, where the angle is 0
    angles = np.arctan(np.exp(0.5 * (shift - levels)))
    inner = np.linspace(angles[0], angles[1], n + 1)[1:-1]
    times = _host(sde, _log_snr_inverse, shift - 2.0 * np.log(np.tan(inner)))
    return np.concatenate([[start], times, [end]])


@eqx.filter_jit
def _log_snr(sde: AbstractAffineSDE, t: Array) -> Array:
    return sde.log_snr(t)


@eqx.filter_jit
def _log_snr_inverse(sde: AbstractAffineSDE, levels: Array) -> Array:
    return sde.log_snr_inverse(levels)


def _host(
    sde: AbstractAffineSDE, function: Callable[[AbstractAffineSDE, Array], Array], values: np.ndarray
) -> np.ndarray:
    if not is_concrete(sde):
        raise TypeError("the process is traced; this grid needs a concrete one: build the grid outside, and pass it.")
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.asarray(function(sde, jnp.asarray(values)), np.float64)


def _pinned(times: np.ndarray, start: float, end: float) -> Grid:
    """The ends exactly: rounding must not push them out of the interval."""
    times = times.copy()
    times[0], times[-1] = start, end
    return times
