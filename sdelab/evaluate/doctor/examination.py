"""What is looked at, and what counts as usual, doubtful and wrong."""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from sdelab._checks import check_count
from sdelab.evaluate.doctor.finding import BAD, OK, WARN, Finding, graded
from sdelab.evaluate.doctor.moments import Moments
from sdelab.evaluate.doctor.prior import prior_mismatch
from sdelab.evaluate.doctor.schedule import is_variance_preserving, kernel_at, levels_at, rates_at, time_at
from sdelab.sde import AbstractAffineSDE


@dataclasses.dataclass(frozen=True)
class Examination:
    """What is examined.

    Fields: `sde`; `moments` of the data; `t_min`, the earliest time that is trained on, None where the loss chooses noise
    levels instead; `steps` of a sampling grid, and of a discretisation; `data_std` that the preconditioner counts on, None if
    on none; `centred`, whether the network expects images about 0 (True) or in [0, 1] (False), None if it does not
    care; `dtype` of its arithmetic.
    """

    sde: AbstractAffineSDE
    moments: Moments
    t_min: float | None = 1e-5
    steps: int = 1000
    data_std: float | None = None
    centred: bool | None = None
    dtype: str = "float32"

    def __post_init__(self):
        check_count(steps=self.steps)


def examine(case: Examination) -> list[Finding]:
    """All findings, those first that concern the end of the process."""
    checks: tuple[Callable[[Examination], Finding | None], ...] = (
        _prior,
        _terminal_snr,
        _largest_noise,
        _float32,
        _bfloat16,
        _rates,
        _end_of_sampling,
        _grid,
        _range,
        _data_std,
    )
    return [finding for finding in (check(case) for check in checks) if finding is not None]


def _prior(case: Examination) -> Finding:
    lower, upper = prior_mismatch(*kernel_at(case.sde, case.sde.t_max), float(case.sde.prior_std()), case.moments)
    verdict = OK if upper <= 0.5 else BAD if lower > 5.0 else WARN
    return Finding(
        "prior mismatch",
        f"{_short(lower)} to {_short(upper)} nats" if lower else f"at most {_short(upper)} nats",
        "0.01 to 0.2; with 0.5 the two differ by at most half in total variation (Pinsker)",
        verdict,
        _more_noise(case),
    )


def _terminal_snr(case: Examination) -> Finding:
    alpha, sigma = kernel_at(case.sde, case.sde.t_max)
    snr = case.moments.mean_square * (alpha / sigma) ** 2
    verdict = _unless_unread(case, graded(snr, 1e-3, 2e-2))
    return Finding(
        "terminal SNR",
        f"{_short(snr)}{_at_most(case)}, that of the kernel alone {_short((alpha / sigma) ** 2)}",
        "below 1e-3: VP 1e-5, EDM 4e-5, VE 1e-4; at 5e-3 samples have the mean brightness of the prior (Lin et al., 2024)",
        verdict,
        _more_noise(case),
    )


def _largest_noise(case: Examination) -> Finding:
    largest, diameter = float(levels_at(case.sde, case.sde.t_max)), case.moments.diameter
    ratio = largest / diameter if diameter else math.inf
    verdict = _unless_unread(case, OK if ratio >= 0.5 else WARN if ratio >= 0.1 else BAD)
    return Finding(
        "largest noise and distance",
        f"sigma/alpha = {_short(largest)} at t_max, {_short(ratio)} of the largest distance {_short(diameter)}{_at_most(case)}",
        "1 (Song and Ermon, 2020, technique 1), 0.8 in EDM, above 1 for VP",
        verdict,
        f"a sigma_max (or beta_max) with sigma/alpha = {_short(diameter)} at t_max",
    )


def _float32(case: Examination) -> Finding:
    return _resolution(case, "float32", "the state of training and sampling", BAD)


def _bfloat16(case: Examination) -> Finding:
    used = case.dtype == "bfloat16"
    words = "the input of the network" if used else "not used by this network"
    return _resolution(case, "bfloat16", words, WARN if used else OK)


def _resolution(case: Examination, dtype: str, where: str, severity: str) -> Finding:
    """The smallest sigma that changes the largest values of the data: the gap between neighbouring numbers there."""
    largest = max(abs(case.moments.low), abs(case.moments.high))
    gap = float(jnp.finfo(dtype).eps) * 2.0 ** math.floor(math.log2(largest)) if largest else 0.0
    time = time_at(case.sde, gap)
    first = case.sde.t_min if case.t_min is None else case.t_min
    smallest = float(levels_at(case.sde, first))
    seen = smallest >= gap
    share = max(0.0, time - first) / (case.sde.t_max - first)
    advice = f"t_min = {time:.2g} or later" + ("" if dtype == "float32" else ", or model.dtype = float32")
    return Finding(
        f"{dtype} resolution",
        f"sigma >= {gap:.2g} ({where}), from t = {time:.2g}; the smallest is {smallest:.2g} at t = {first:.2g}"
        + ("" if seen else f", a share of {share:.2g} of the times is below"),
        "the smallest sigma is resolved",
        OK if seen else severity,
        advice,
    )


def _rates(case: Examination) -> Finding | None:
    if not is_variance_preserving(case.sde):
        return None  # DDPM's steps have no meaning for it
    times = np.linspace(0.0, case.sde.t_max, 1001)
    rates = rates_at(case.sde, times) * case.sde.t_max
    largest, index = float(rates.max()) / case.steps, int(np.argmax(rates))
    least = math.floor(float(rates.max())) + 1
    return Finding(
        "beta_i of a discretisation",
        f"at most {_short(largest)} with {case.steps} steps, at t = {times[index]:.3g}",
        "0.02 with 1000 steps; sqrt(1 - beta_i) needs beta_i < 1",
        OK if largest <= 0.5 else WARN if largest < 1.0 else BAD,
        f"{least} steps at least, or {2 * least} for beta_i <= 1/2, or a smaller beta_max",
    )


def _end_of_sampling(case: Examination) -> Finding:
    wanted = case.moments.grain or 0.004 * case.moments.std
    level, time = float(levels_at(case.sde, case.sde.t_min)), time_at(case.sde, wanted)
    verdict = graded(level / wanted, 10.0, 50.0) if wanted else OK
    what = "the noise of rounding to grey levels" if case.moments.grain else "0.4 % of the data's standard deviation"
    return Finding(
        "t_min of sampling",
        f"t_min = {case.sde.t_min:.2g} leaves noise of {level:.2g}; {wanted:.2g}, {what}, is at t = {time:.2g}",
        "up to 10 times that with a last denoising step (`--finish tweedie`)",
        verdict,
        f"t_min = {time:.2g}",
    )


def _grid(case: Examination) -> Finding:
    start, end = (2.0 * math.log(float(levels_at(case.sde, t))) for t in (case.sde.t_max, _positive(case.sde)))
    times = np.linspace(case.sde.t_max, _positive(case.sde), case.steps + 1)
    largest = 0.5 * float(np.max(-np.diff(2.0 * np.log(levels_at(case.sde, times)))))
    even = 0.5 * (start - end) / case.steps
    ok = largest <= max(0.5, 3.0 * even)
    return Finding(
        "grid of sampling",
        f"{case.steps} uniform steps: the largest is {_short(largest)} in lambda = log(alpha/sigma); {_short(even)} if even",
        "below 0.5, or as even as can be",
        OK if ok else WARN,
        "`--grid log_snr`, or `--grid edm` for Heun's method, which put steps where the data's scale is",
    )


def _positive(sde: AbstractAffineSDE) -> float:
    """`t_min`, or the first time with noise that a grid of log-SNR may have."""
    return sde.t_min if float(levels_at(sde, sde.t_min)) > 0.0 else 1e-6 * sde.t_max


def _range(case: Examination) -> Finding:
    moments, advice, verdict = case.moments, "", OK
    zero_to_one = moments.low >= -0.01 and moments.high <= 1.01
    rms = math.sqrt(moments.mean_square)
    if case.centred is not None and moments.grain and case.centred == zero_to_one:
        wanted = "low = -1" if case.centred else "low = 0"
        verdict, advice = (
            BAD,
            f"data.{wanted}, or model.centered = {not case.centred}: the network's input is not as it expects",
        )
    elif is_variance_preserving(case.sde):
        verdict = max(graded(rms, 1.5, 3.0), graded(1.0 / max(rms, 1e-30), 5.0, 50.0), key=(OK, WARN, BAD).index)
        advice = "data scaled to [-1, 1]: the process keeps a variance of 1"
    return Finding(
        "range of the data",
        f"[{moments.low:.4g}, {moments.high:.4g}], root mean square {rms:.3g}"
        + (" at most" if not moments.samples else ""),
        "[-1, 1] and 0.2 to 1.5 for variance-preserving processes, which end at unit variance; [0, 1] for score_sde's VE",
        verdict,
        advice,
    )


def _data_std(case: Examination) -> Finding | None:
    if case.data_std is None:
        return None
    rms = math.sqrt(case.moments.mean_square)
    apart = abs(math.log(case.data_std / rms)) if case.moments.samples and rms else 0.0
    verdict = graded(apart, math.log(1.3), math.log(2.5))
    found = f"the data's is {rms:.3g} (root mean square), {case.moments.std:.3g} (standard deviation)"
    return Finding(
        "data_std of the preconditioner",
        f"{case.data_std:.3g}; {found if case.moments.samples else 'the data were not read'}",
        "within 1.3 of the root mean square: inputs and targets of the network have unit size then",
        verdict,
        f"preconditioner.data_std = {rms:.2g}",
    )


def _more_noise(case: Examination) -> str:
    what = "a larger beta_max or t_max" if is_variance_preserving(case.sde) else "a larger sigma_max or t_max"
    known = "" if case.moments.samples else ", if the data are as large as their scaling allows"
    return f"{what}: too much of the data is left at t_max = {case.sde.t_max:g}{known}"


def _unless_unread(case: Examination, verdict: str) -> str:
    """What bounds alone make look bad is doubtful."""
    return verdict if case.moments.samples or verdict == OK else WARN


def _at_most(case: Examination) -> str:
    return "" if case.moments.samples else " (at most)"


def _short(value: float) -> str:
    return f"{value:.3g}"
