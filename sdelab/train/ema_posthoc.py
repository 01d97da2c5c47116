r"""Averages of a profile that was not kept, made of stored ones. Karras et al. (2024), https://arxiv.org/abs/2312.02696.

An average with a power function as its profile, taken after t updates, is $\int p_{\gamma,t}(\tau)\,\theta(\tau)\,d\tau$ with
$p_{\gamma,t}(\tau) = \frac{\gamma + 1}{t} (\tau / t)^\gamma$ on $[0, t]$. Averages are linear in their profiles: the coefficients that
bring a sum of stored profiles closest to another profile, scaled to the sum 1, make of the stored averages the other average.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from sdelab.train.ema import power_of

Profile: TypeAlias = tuple[float, int]
"""`(sigma_rel, step)`: the relative width of a power function, and the number of updates after which it ends."""


def coefficients(stored: Sequence[Profile], wanted: Profile) -> tuple[Float[np.ndarray, " stored"], float]:
    r"""The least-squares coefficients $x$ of the stored profiles, and what is left, $\lVert \sum_i x_i p_i - p \rVert / \lVert p \rVert$.

    The minimum of $\lVert \sum_i x_i p_i - p \rVert^2$, by the pseudo-inverse of the matrix of inner products in float64, since
    many stored profiles are nearly dependent; then divided by their sum, so that what does not change in training, such as the
    frequencies of an embedding, is its own average. Karras et al. (2024), section 3.2, and `solve_posthoc_coefficients` of
    https://github.com/NVlabs/edm2.
    Errors: no stored profile; one of another step than a positive one; one so far from the stored ones that nothing of them is in it.
    """
    if not stored:
        raise ValueError("stored = () is not accepted; accepted: at least one stored profile.")
    profiles = [_with_power(profile) for profile in (*stored, wanted)]
    norms = np.sqrt([inner(p, p) for p in profiles])
    gram = np.array([[inner(a, b) for b in profiles] for a in profiles]) / np.outer(norms, norms)
    solution = np.linalg.lstsq(gram[:-1, :-1], gram[:-1, -1], rcond=1e-13)[0]
    solution *= norms[-1] / norms[:-1]
    if not solution.sum() > 0.0:
        raise ValueError(f"wanted = {wanted} is not accepted; accepted: a profile that overlaps with the stored ones.")
    solution /= solution.sum()
    scaled = solution * norms[:-1] / norms[-1]
    left = 1.0 - 2.0 * scaled @ gram[:-1, -1] + scaled @ gram[:-1, :-1] @ scaled
    return solution, float(np.sqrt(max(left, 0.0)))


def inner(a: tuple[float, int], b: tuple[float, int]) -> float:
    r"""$\int p_a p_b = \frac{(\gamma_a + 1)(\gamma_b + 1)}{(\gamma_a + \gamma_b + 1)\,t_b} (t_a / t_b)^{\gamma_b}$ for $t_a \le t_b$.

    `a` and `b` are pairs $(\gamma, t)$. Karras et al. (2024), eq. 151.
    """
    (gamma_a, t_a), (gamma_b, t_b) = sorted((a, b), key=lambda profile: profile[1])
    ratio = (t_a / t_b) ** gamma_b / t_b
    return (gamma_a + 1.0) * (gamma_b + 1.0) / (gamma_a + gamma_b + 1.0) * ratio


def _with_power(profile: Profile) -> tuple[float, int]:
    sigma_rel, step = profile
    if step < 1:
        raise ValueError(f"step = {step} is not accepted; a profile ends after an integer >= 1 of updates.")
    return power_of(sigma_rel), step
