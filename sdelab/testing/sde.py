"""Does a forward process fit together? For authors of `AbstractSDE` and `AbstractAffineSDE`."""

from collections.abc import Callable

import jax

from sdelab._checks import check_count, check_positive
from sdelab.reverse import check_process
from sdelab.sde import AbstractAffineSDE, AbstractSDE
from sdelab.testing.affine import kernel, linearity, log_snr, prior_at_the_end, single_precision
from sdelab.testing.process import Case, dtypes, positivity, prior, pytree, times
from sdelab.testing.report import Finding, Report, failure

Check = Callable[[Case], list[Finding]]

_EVERY: dict[str, Check] = {"time": times, "dtype": dtypes, "positivity": positivity, "prior": prior, "pytree": pytree}
_AFFINE: dict[str, Check] = {
    "kernel": kernel,
    "linearity": linearity,
    "log_snr": log_snr,
    "prior at t_max": prior_at_the_end,
    "precision": single_precision,
}


def check_sde(sde: AbstractSDE, *, data_std: float = 1.0, event_shape: tuple[int, ...] = (2,)) -> Report:
    r"""Raises a `ValueError` that lists everything that does not fit together in `sde`; returns the report otherwise.

    For every process: scalar and per-sample times agree, samples of a batch do not mix, dtypes are kept, g is finite
    and not negative, the prior's density is normalised and is that of its samples, and `jit`, `vmap` and `grad` by the
    fields work. For a process with a kernel: $d\log\alpha/dt = f/x$ and $d\sigma^2/dt = 2 (f/x) \sigma^2 + g^2$ in float64,
    the drift is linear, the log-SNR decreases and is inverted, the prior is the marginal at `t_max`, and `alpha` and
    `sigma` in float32 are good to 2e-6 from `min(t_min, 1e-5 t_max)` on. Song et al. (2021), eq. 5 and appendix A,
    https://arxiv.org/abs/2011.13456; Särkkä and Solin (2019), eq. 6.2, for the two equations of the kernel.

    `data_std` is the standard deviation of a coordinate of the data, in their units: the prior is judged by it.
    `event_shape` is the shape of one sample, small: the prior's density is integrated over it.
    """
    report = report_sde(sde, data_std=data_std, event_shape=event_shape)
    if report.failures:
        raise ValueError(str(report))
    return report


def report_sde(sde: AbstractSDE, *, data_std: float = 1.0, event_shape: tuple[int, ...] = (2,)) -> Report:
    """What `check_sde` looks at, as a `Report`, whatever it finds."""
    check_process(sde)
    check_positive(data_std=data_std)
    check_count(**{f"event_shape[{axis}]": size for axis, size in enumerate(event_shape)})
    case = Case(sde, float(data_std), tuple(event_shape))
    checks = _EVERY | (_AFFINE if isinstance(sde, AbstractAffineSDE) else {})
    findings = [finding for name, check in checks.items() for finding in _guarded(name, check, case)]
    return Report(type(sde).__name__, tuple(findings))


def _guarded(name: str, check: Check, case: Case) -> list[Finding]:
    """An error inside the author's own code is a finding too."""
    try:
        with jax.enable_x64(True):
            return check(case)
    except Exception as error:
        return [failure(name, f"could not be evaluated, {type(error).__name__}: {first_line(error)}")]


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
