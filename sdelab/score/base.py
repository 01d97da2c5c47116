"""The score, the one currency between models, solvers and likelihoods."""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
from equinox import AbstractVar

from sdelab._broadcast import expand_right
from sdelab._typing import State, Time
from sdelab.sde import AbstractAffineSDE

Score: TypeAlias = Callable[..., State]
"""Any callable `(x, t) -> score`, or `(x, t, condition) -> score` where the process is given a condition."""


class AbstractScore(eqx.Module):
    r"""A score that also knows its denoiser, for an affine process.

    By Tweedie's formula the three say the same: $s = (\alpha D - x)/\sigma^2$, $\epsilon = -\sigma s$. A model that
    predicts one of them directly would lose digits if it were taken through another, so each has its own method.
    Efron (2011), eq. 2.8, https://doi.org/10.1198/jasa.2011.tm11181.
    """

    sde: AbstractVar[AbstractAffineSDE]

    @abc.abstractmethod
    def __call__(self, x: State, t: Time, condition: Any = None) -> State:
        r"""$\nabla_x \log p_t(x)$, of the shape of `x`; `t` a scalar or one time per sample."""

    @abc.abstractmethod
    def denoise(self, x: State, t: Time, condition: Any = None) -> State:
        r"""$D = E[x_0 \mid x_t = x]$, of the shape of `x`."""

    def noise(self, x: State, t: Time, condition: Any = None) -> State:
        r"""$E[\epsilon \mid x_t = x] = -\sigma s$, of the shape of `x`."""
        return -expand_right(self.sde.sigma(t), x) * self(x, t, condition)
