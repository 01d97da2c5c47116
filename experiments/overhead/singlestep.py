r"""What single steps multiply states and predictions by, from their papers, on a grid of `VP`."""

from collections.abc import Callable

import numpy as np

from experiments.overhead.rivals import (
    BETA_MAX,
    BETA_MIN,
    Kernel,
    Langevin,
    Staged,
    kernel_at_level,
    staged,
)


def euler_maruyama(at: Kernel) -> Staged:
    """Song et al. (2021), section 4.1, https://arxiv.org/abs/2011.13456."""
    t0, size = at.t[:-1], _beta(at.t[:-1]) * -np.diff(at.t)
    return staged([(t0, 1.0 + 0.5 * size, [size])], np.sqrt(size))


def reverse_diffusion(at: Kernel) -> Staged:
    """The same paper, eq. 46, with the exact transition."""
    a, b = at[:-1], at[1:]
    scale = a.alpha / b.alpha
    variance = a.sigma**2 - (scale * b.sigma) ** 2
    return staged([(a.t, 2.0 - scale, [variance])], np.sqrt(variance))


def ancestral(at: Kernel) -> Staged:
    """Ho et al. (2020), eq. 6 and 7, https://arxiv.org/abs/2006.11239."""
    a, b = at[:-1], at[1:]
    ratio = np.exp(2.0 * (a.level - b.level))
    fresh = -np.expm1(2.0 * (a.level - b.level))
    return staged([(a.t, ratio * b.alpha / a.alpha, [b.alpha * fresh])], b.sigma * np.sqrt(fresh))


def euler(at: Kernel) -> Staged:
    """Euler's method for the probability flow."""
    t0, size = at.t[:-1], _beta(at.t[:-1]) * -np.diff(at.t)
    return staged([(t0, 1.0 + 0.5 * size, [0.5 * size])])


def heun_in_time(at: Kernel) -> Staged:
    """Heun's method for the probability flow in t."""
    h, rate0, rate1 = -np.diff(at.t), 0.5 * _beta(at.t[:-1]), 0.5 * _beta(at.t[1:])
    up, down = 1.0 + h * rate0, h * rate0  # the state and the score of an Euler step
    a = 1.0 + 0.5 * h * (rate0 + rate1 * up)
    return staged([(at.t[:-1], up, [down]), (at.t[1:], a, [0.5 * h * rate0 * (1.0 + h * rate1), 0.5 * h * rate1])])


def midpoint_in_time(at: Kernel) -> Staged:
    """The midpoint rule for the probability flow in t."""
    return _second_order_in_time(at, 0.5)


def ralston_in_time(at: Kernel) -> Staged:
    """Ralston (1962), the method of second order with the least bound on its error."""
    return _second_order_in_time(at, 2.0 / 3.0)


def _second_order_in_time(at: Kernel, fraction: float) -> Staged:
    """The state and the score at `fraction` of a step by Euler, and the line through both slopes."""
    h, later = -np.diff(at.t), at.t[:-1] + fraction * np.diff(at.t)
    rate0, rate1, second = 0.5 * _beta(at.t[:-1]), 0.5 * _beta(later), 0.5 / fraction
    up, down = 1.0 + fraction * h * rate0, fraction * h * rate0
    a = 1.0 + h * ((1.0 - second) * rate0 + second * rate1 * up)
    b0 = h * ((1.0 - second) * rate0 + second * rate1 * down)
    return staged([(at.t[:-1], up, [down]), (later, a, [b0, second * h * rate1])])


def heun(at: Kernel) -> Staged:
    """Karras et al. (2022), algorithm 1, https://arxiv.org/abs/2206.00364, for x and not x / alpha."""
    return _heun(at[:-1], at[1:])


def _heun(a: Kernel, b: Kernel) -> Staged:
    scale, size = b.alpha / a.alpha, b.sigma - a.sigma * b.alpha / a.alpha
    return staged([(a.t, scale, [size]), (b.t, scale, [0.5 * size, 0.5 * size])])


def ddim(at: Kernel) -> Staged:
    """Song et al. (2020), eq. 13, https://arxiv.org/abs/2010.02502."""
    a, b = at[:-1], at[1:]
    return staged([(a.t, b.sigma / a.sigma, [-b.alpha * np.expm1(a.level - b.level)])])


def dpm_solver_2(at: Kernel) -> Staged:
    """Lu et al. (2022), algorithm 1, https://arxiv.org/abs/2206.00927."""
    a, b = at[:-1], at[1:]
    h = b.level - a.level
    s = kernel_at_level(a.level + 0.5 * h)
    whole = np.zeros_like(h), -b.sigma * np.expm1(h)
    return staged([(a.t, s.alpha / a.alpha, [-s.sigma * np.expm1(0.5 * h)]), (s.t, b.alpha / a.alpha, list(whole))])


def dpm_solver_3(at: Kernel) -> Staged:
    """The same paper, algorithm 2."""
    a, b = at[:-1], at[1:]
    h = b.level - a.level
    s1, s2 = kernel_at_level(a.level + h / 3.0), kernel_at_level(a.level + 2.0 * h / 3.0)
    second = -2.0 * s2.sigma * (np.expm1(2.0 * h / 3.0) / (2.0 * h / 3.0) - 1.0)
    last = -1.5 * b.sigma * (np.expm1(h) / h - 1.0)
    columns = [
        (a.t, s1.alpha / a.alpha, [-s1.sigma * np.expm1(h / 3.0)]),
        (s1.t, s2.alpha / a.alpha, [-s2.sigma * np.expm1(2.0 * h / 3.0) - second, second]),
        (s2.t, b.alpha / a.alpha, [-b.sigma * np.expm1(h) - last, np.zeros_like(h), last]),
    ]
    return staged(columns)


def dpm_solver_plus_plus_2s(at: Kernel) -> Staged:
    """Lu et al. (2022), algorithm 1, https://arxiv.org/abs/2211.01095."""
    a, b = at[:-1], at[1:]
    h = b.level - a.level
    s = kernel_at_level(a.level + 0.5 * h)
    whole = np.zeros_like(h), -b.alpha * np.expm1(-h)
    return staged([(a.t, s.sigma / a.sigma, [-s.alpha * np.expm1(-0.5 * h)]), (s.t, b.sigma / a.sigma, list(whole))])


def dpm_solver_plus_plus_3s(at: Kernel) -> Staged:
    """DPM-Solver-3 in the predicted data."""
    a, b = at[:-1], at[1:]
    h = b.level - a.level
    s1, s2 = kernel_at_level(a.level + h / 3.0), kernel_at_level(a.level + 2.0 * h / 3.0)
    second = 2.0 * s2.alpha * (1.0 + np.expm1(-2.0 * h / 3.0) / (2.0 * h / 3.0))
    last = 1.5 * b.alpha * (1.0 + np.expm1(-h) / h)
    columns = [
        (a.t, s1.sigma / a.sigma, [-s1.alpha * np.expm1(-h / 3.0)]),
        (s1.t, s2.sigma / a.sigma, [-s2.alpha * np.expm1(-2.0 * h / 3.0) - second, second]),
        (s2.t, b.sigma / a.sigma, [-b.alpha * np.expm1(-h) - last, np.zeros_like(h), last]),
    ]
    return staged(columns)


def sde_dpm_solver_plus_plus_1(at: Kernel) -> Staged:
    """Lu et al. (2022), section 5, https://arxiv.org/abs/2211.01095."""
    a, b = at[:-1], at[1:]
    h = b.level - a.level
    return staged([(a.t, b.sigma / a.sigma * np.exp(-h), [-b.alpha * np.expm1(-2.0 * h)])], fresh_noise(b, h))


def exponential_euler(at: Kernel) -> Staged:
    """Zhang and Chen (2022), section 3.1, https://arxiv.org/abs/2204.13902, with noise."""
    a, b = at[:-1], at[1:]
    scale, variance = b.alpha / a.alpha, -(a.sigma**2) * np.expm1(2.0 * (a.level - b.level))
    return staged([(a.t, scale, [scale * variance])], scale * np.sqrt(variance))


def churned_heun(s_churn: float) -> Callable[[Kernel], Staged]:
    """Karras et al. (2022), algorithm 2, https://arxiv.org/abs/2206.00364, with noise up to t_max only."""

    def numbers(at: Kernel) -> Staged:
        n = len(at.t) - 1
        growth = np.log1p(min(s_churn / n, np.sqrt(2.0) - 1.0))
        raised = kernel_at_level(np.maximum(at.level[:-1] - growth, at.level[0]))
        lift = raised.alpha / at.alpha[:-1]
        std = np.sqrt(np.maximum(raised.sigma**2 - (lift * at.sigma[:-1]) ** 2, 0.0))
        return _heun(raised, at[1:])._replace(std=std, lift=lift)

    return numbers


def ancestral_heun(at: Kernel) -> Staged:
    """Heun's step down to the level from which the ancestral noise goes up: Song et al. (2020), eq. 16,
    https://arxiv.org/abs/2010.02502."""
    a, b = at[:-1], at[1:]
    down = kernel_at_level(2.0 * b.level - a.level)
    step, up = _heun(a, down), b.alpha / down.alpha
    step.a[:, 1] *= up
    step.b[:, 1] *= up[:, None]
    return step._replace(std=np.sqrt(b.sigma**2 - (up * down.sigma) ** 2))


def ancestral_ddpm(at: Kernel) -> Staged:
    """Song et al. (2021), eq. 4, https://arxiv.org/abs/2011.13456, from a table of 1000."""
    beta = np.linspace(BETA_MIN, BETA_MAX, 1000)[np.floor(at.t[:-1] * 999).astype(int)] / 1000
    scale = 1.0 / np.sqrt(1.0 - beta)
    return staged([(at.t[:-1], scale, [scale * beta])], np.sqrt(beta))


def corrected_reverse_diffusion(snr: float) -> Callable[[Kernel], Langevin]:
    """Song et al. (2021), algorithms 1 and 4, https://arxiv.org/abs/2011.13456, with the step of the kernel's score."""

    def numbers(at: Kernel) -> Langevin:
        step, size = reverse_diffusion(at), 2.0 * (snr * at.sigma[:-1]) ** 2
        assert step.std is not None
        return Langevin(at.t[:-1], size, np.sqrt(2.0 * size), step.a[:, 0], step.b[:, 0, 0], step.std)

    return numbers


def fresh_noise(b: Kernel, h: np.ndarray) -> np.ndarray:
    return b.sigma * np.sqrt(-np.expm1(-2.0 * h))


def _beta(t: np.ndarray) -> np.ndarray:
    return BETA_MIN + t * (BETA_MAX - BETA_MIN)
