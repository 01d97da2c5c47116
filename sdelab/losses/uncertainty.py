r"""A learned uncertainty of the noise levels: the loss $L$ becomes $L\,e^{-u} + u$ with a log-variance $u$ of the level.

For given losses the best $u$ is $\log E L$ at each level, and then every level has weight one: $u$ levels the gradients'
scale as training goes on. Karras et al. (2024), section 2 and appendix B, https://arxiv.org/abs/2312.02696; Kendall, Gal and
Cipolla (2018), eq. 7, https://arxiv.org/abs/1705.07115.
"""

from statistics import NormalDist
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdelab._checks import check_count


def with_uncertainty(losses: Float[Array, " batch"], log_variance: Float[Array, " batch"]) -> Float[Array, " batch"]:
    r"""$L\,e^{-u} + u$, per example: `losses` $L$ and the `log_variance` $u$ at their noise levels.

    With $L$ a mean over the dimensions of a sample, as all of ours are, $u$ is the logarithm of the error of one of them.
    """
    return losses * jnp.exp(-log_variance) + log_variance


class FourierLogVariance(eqx.Module):
    r"""$u(c) = b + \frac{\sqrt 2}{\sqrt n} \sum_k w_k \cos(2\pi (f_k c + \varphi_k))$, a function `(params, c_noise) -> u`.

    As EDM2's, a linear map of fixed Fourier features of the label. Its random frequencies, $f_k \sim N(0, 1)$, and phases are
    here the normal distribution's quantiles and a golden sequence: constants of the program, the same in every run. It starts
    at $u = 0$, the loss as it is, where EDM2's starts with a normalised random $w$ and no $b$.
    Karras et al. (2024), appendix B, https://arxiv.org/abs/2312.02696.

    Fields: `features` = n >= 1, 128 as published.
    """

    features: int = eqx.field(default=128, static=True)

    def __check_init__(self):
        check_count(features=self.features)

    def init(self) -> dict[str, Any]:
        """The parameters at the start, all zero: a nested dict beside the network's."""
        return {"weight": jnp.zeros((self.features,), jnp.float32), "bias": jnp.zeros((), jnp.float32)}

    def __call__(self, params: dict[str, Any], c_noise: Float[Array, " batch"]) -> Float[Array, " batch"]:
        frequencies, phases = _constants(self.features)
        label = c_noise.astype(jnp.float32)[:, None]
        waves = jnp.cos(label * jnp.asarray(frequencies)[None] + jnp.asarray(phases)[None])
        return params["bias"] + jnp.sum(waves * params["weight"][None], axis=1) * (2.0 / self.features) ** 0.5


def _constants(n: int) -> tuple[np.ndarray, np.ndarray]:
    probabilities = (np.arange(n) + 0.5) / n
    normal = np.array([NormalDist().inv_cdf(p) for p in probabilities])
    golden = np.arange(n) * (np.sqrt(5.0) - 1.0) / 2.0 % 1.0
    return (2 * np.pi * normal).astype(np.float32), (2 * np.pi * golden).astype(np.float32)
