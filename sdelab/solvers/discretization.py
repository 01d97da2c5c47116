r"""How the forward process is discretised, $x_{i+1} = x_i + f(x_i) + G z$: the rule that reverse diffusion inverts.

`Transition` is exact over the interval. The others are the published tables and steps, which do not look at the
interval's end; use them with `grids.published` to reproduce runs of score_sde.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdelab._broadcast import expand_right
from sdelab._checks import check_count, check_increasing, check_nonnegative, check_positive
from sdelab._numerics import safe_sqrt
from sdelab._typing import Scalar, State
from sdelab.reverse import require_affine
from sdelab.score.tables import linear_entry
from sdelab.score.tables import table_index as table_index
from sdelab.sde import AbstractAffineSDE, AbstractSDE
from sdelab.solvers.base import Interval


class AbstractDiscretization(eqx.Module):
    """A discrete forward step at `interval.t0`."""

    @abc.abstractmethod
    def forward(self, sde: AbstractSDE, x: State, interval: Interval) -> tuple[State, Float[Array, ""]]:
        """$f(x)$, of the shape of `x`, and $G$, a scalar."""


class Transition(AbstractDiscretization):
    r"""The exact transition from $t_1$ to $t_0$ of an affine process: $f = (a - 1) x$ and $G^2 = \sigma_0^2 - a^2 \sigma_1^2$.

    $a = \alpha_0/\alpha_1$. With one table step it is `DDPM` and `SMLD`.
    """

    def forward(self, sde: AbstractSDE, x: State, interval: Interval) -> tuple[State, Float[Array, ""]]:
        scale, std = transition(require_affine(sde, "Transition"), interval.t1, interval.t0)
        return (scale - 1.0) * x, std


class EulerSteps(AbstractDiscretization):
    r"""Euler steps of the published length $1/N$ whatever the grid: $f = f(x, t_0)/N$, $G = g(t_0)/\sqrt N$.

    score_sde's Euler–Maruyama, and its discretisation of sub-VP: https://github.com/yang-song/score_sde, sde_lib.py.
    """

    n: int = eqx.field(static=True)

    def __check_init__(self):
        check_count(n=self.n)

    def forward(self, sde: AbstractSDE, x: State, interval: Interval) -> tuple[State, Float[Array, ""]]:
        return sde.drift(x, interval.t0) / self.n, sde.diffusion(interval.t0) / np.sqrt(self.n).item()


class DDPM(AbstractDiscretization):
    r"""DDPM's table: $\beta_i$ linear from $\beta_{min}/N$ to $\beta_{max}/N$, $f = (\sqrt{1 - \beta_i} - 1) x$, $G = \sqrt{\beta_i}$.

    $i = \lfloor t (N - 1) \rfloor$. Song et al. (2021), appendix B, https://arxiv.org/abs/2011.13456; needs
    $\beta_{max} < N$.
    """

    n: int = eqx.field(default=1000, static=True)
    beta_min: Scalar = 0.1
    beta_max: Scalar = 20.0

    def __check_init__(self):
        check_count(n=self.n)
        check_nonnegative(beta_min=self.beta_min, beta_max=self.beta_max)
        check_increasing(beta_max=self.beta_max, n=self.n)

    def beta(self, index: Int[Array, "..."]) -> Float[Array, "..."]:
        return _table(self.beta_min / self.n, self.beta_max / self.n, self.n, index)

    def forward(self, sde: AbstractSDE, x: State, interval: Interval) -> tuple[State, Float[Array, ""]]:
        beta = self.beta(table_index(interval.t0, self.n)).astype(x.dtype)
        return (jnp.sqrt(1.0 - beta) - 1.0) * x, jnp.sqrt(beta)


class SMLD(AbstractDiscretization):
    r"""SMLD's table: $\sigma_i$ log-spaced from $\sigma_{min}$ to $\sigma_{max}$, $f = 0$, $G^2 = \sigma_i^2 - \sigma_{i-1}^2$.

    $i = \lfloor t (N - 1) \rfloor$ and $\sigma_{-1} = 0$. Song et al. (2021), appendix B, https://arxiv.org/abs/2011.13456.
    """

    n: int = eqx.field(default=1000, static=True)
    sigma_min: Scalar = 0.01
    sigma_max: Scalar = 50.0

    def __check_init__(self):
        check_count(n=self.n)
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_increasing(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    def sigma(self, index: Int[Array, "..."]) -> Float[Array, "..."]:
        """Entry `index` of the table; 0 at index -1."""
        sigma = jnp.exp(_table(jnp.log(self.sigma_min), jnp.log(self.sigma_max), self.n, jnp.maximum(index, 0)))
        return jnp.where(index < 0, 0.0, sigma)

    def forward(self, sde: AbstractSDE, x: State, interval: Interval) -> tuple[State, Float[Array, ""]]:
        index = table_index(interval.t0, self.n)
        G = jnp.sqrt(self.sigma(index) ** 2 - self.sigma(index - 1) ** 2)
        return 0.0 * expand_right(G, x).astype(x.dtype) * x, G.astype(x.dtype)


def transition(sde: AbstractAffineSDE, start: Array, end: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Scale $a = \alpha(\mathrm{end})/\alpha(\mathrm{start})$ and standard deviation of the forward kernel, `end` >= `start`.

    1 and 0, to the last bit, where the two are the same.
    """
    forward = end > start
    _, fraction = snr_ratio(sde, jnp.where(forward, end, sde.t_max), start)  # its derivative at sigma = 0 is not finite
    return sde.alpha(end) / sde.alpha(start), sde.sigma(end) * safe_sqrt(jnp.where(forward, fraction, 0.0))


def snr_ratio(sde: AbstractAffineSDE, t0: Array, t1: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""$\mathrm{SNR}_0/\mathrm{SNR}_1$ and one minus it, the share of new noise in $\sigma_0^2$, without cancellation.

    0 and 1, with derivative 0, where $\sigma_1 = 0$.
    """
    sigma1 = sde.sigma(t1)
    noisy = sigma1 > 0
    gap = sde.log_snr(t0) - 2.0 * (jnp.log(sde.alpha(t1)) - jnp.log(jnp.where(noisy, sigma1, 1.0)))
    return jnp.where(noisy, jnp.exp(gap), 0.0), jnp.where(noisy, -jnp.expm1(gap), 1.0)


def _table(first: Scalar, last: Scalar, n: int, index: Int[Array, "..."]) -> Float[Array, "..."]:
    return jnp.asarray(linear_entry(first, last, n, jnp.asarray(index).astype(jnp.result_type(float))))
