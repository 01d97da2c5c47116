r"""Preconditioners: what a raw network predicts, and at which scale it sees its input.

A network $F$ becomes a denoiser and, by Tweedie, a prediction of the noise:

1. $D = c_{skip} x + c_{out} F(c_{in} x, c_{noise})$.
2. $\epsilon = (x - \alpha D)/\sigma = n_{skip} x + n_{out} F$, and the score is $-\epsilon/\sigma$.

(2) follows from (1), but computing it from $D$ loses digits wherever $\alpha D \approx x$. Every preconditioner
therefore knows both pairs in closed form.
"""

import abc
from typing import TypeAlias

import equinox as eqx
from jaxtyping import Array, Float

Coefficient: TypeAlias = Float[Array, "..."]


class AbstractPreconditioner(eqx.Module):
    r"""Coefficients that turn a raw network into a denoiser and into a prediction of the noise.

    All are functions of the kernel $N(\alpha x_0, \sigma^2 I)$ and have the shape of `alpha` and `sigma`; the label
    alone may depend on the time itself. $n_{skip} = (1 - \alpha c_{skip})/\sigma$ and $n_{out} = -\alpha c_{out}/\sigma$,
    written without the subtraction. Karras et al. (2022), eq. 7, https://arxiv.org/abs/2206.00364.
    """

    @abc.abstractmethod
    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        """Factor of $x$ in the denoiser."""

    @abc.abstractmethod
    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        """Factor of the network's output in the denoiser."""

    @abc.abstractmethod
    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        r"""Factor of $x$ in the noise; may be infinite where $\sigma = 0$."""

    @abc.abstractmethod
    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        r"""Factor of the network's output in the noise; may be infinite where $\sigma = 0$."""

    @abc.abstractmethod
    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        """Factor of $x$ on its way into the network."""

    @abc.abstractmethod
    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        """The label of the noise level that the network is given."""
