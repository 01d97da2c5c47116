import functools

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from sdelab._checks import check_count, check_positive
from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.scaled_noise import AbstractScaledNoise


class IDDPMPreconditioner(AbstractScaledNoise):
    r"""EDM's form of iDDPM's and ADM's networks, for any affine process: $F = \epsilon$, labels from a table of noise levels.

    As `VPPreconditioner`, but for the label: with $r = \sigma/\alpha$, $c_{noise} = M - 1 - \arg\min_j |u_j - r|$ in the table
    $u_M = 0$, $u_{j-1} = \sqrt{(u_j^2 + 1)/\max(\bar\alpha_{j-1}/\bar\alpha_j, C_1) - 1}$,
    $\bar\alpha_j = \sin^2(\tfrac{\pi}{2} \tfrac{j}{M (C_2 + 1)})$: the cosine schedule, and 0 is the smallest level but none at all. A
    level below half of that is rounded to $u_M$ and gets the label -1, as published. Only the label is rounded, not $\sigma$.
    A network that also returns a variance has twice the channels: wrap it to return the first half.
    Karras et al. (2022), table 1, column iDDPM, https://arxiv.org/abs/2206.00364; Nichol and Dhariwal (2021), eq. 17,
    https://arxiv.org/abs/2102.09672.

    Fields: `n` = M >= 1; `c_1`, `c_2` > 0.
    """

    n: int = eqx.field(default=1000, static=True)
    c_1: float = eqx.field(default=0.001, static=True, converter=float)
    c_2: float = eqx.field(default=0.008, static=True, converter=float)

    def __check_init__(self):
        check_count(n=self.n)
        check_positive(c_1=self.c_1, c_2=self.c_2)

    def levels(self) -> np.ndarray:
        """The table $u_0 > ... > u_M = 0$, float64, shape `(n + 1,)`."""
        return _levels(self.n, self.c_1, self.c_2)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.ones_like(sigma)

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / jnp.sqrt(alpha**2 + sigma**2)

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        ratio = sigma / alpha
        levels = jnp.asarray(self.levels(), ratio.dtype).reshape((1,) * ratio.ndim + (-1,))
        index = jnp.argmin(jnp.abs(levels - ratio[..., None]), axis=-1)
        return (self.n - 1 - index).astype(ratio.dtype)


@functools.lru_cache(maxsize=8)
def _levels(n: int, c_1: float, c_2: float) -> np.ndarray:
    alpha_bar = np.sin(0.5 * np.pi * np.arange(n + 1) / (n * (c_2 + 1.0))) ** 2
    levels = np.zeros(n + 1)
    for j in range(n, 0, -1):
        levels[j - 1] = np.sqrt((levels[j] ** 2 + 1.0) / max(alpha_bar[j - 1] / alpha_bar[j], c_1) - 1.0)
    levels.flags.writeable = False
    return levels
