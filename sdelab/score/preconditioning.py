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
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Float

from sdelab._checks import check_positive
from sdelab._typing import Scalar

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


class AbstractUnitInput(AbstractPreconditioner):
    r"""The network sees an input of unit variance, and the noise level on a logarithmic scale.

    $c_{in} = (\alpha^2 s_d^2 + \sigma^2)^{-1/2}$ with $s_d$ the standard deviation of the data: 1 for VP on standardised
    data, 1/50 at the far end of VE. $c_{noise} = \tfrac14 \log(\sigma/\alpha) = -\tfrac18 \mathrm{log\_snr}$ lies within
    about [-3, 2] for all processes. It is the same function of the noise level for all of them, so that a network
    does not depend on how a process runs its clock.
    Karras et al. (2022), table 1, https://arxiv.org/abs/2206.00364.
    """

    data_std: AbstractVar[Scalar]

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / self._input_std(alpha, sigma)

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        ratio = sigma / alpha
        # finite at sigma = 0, where D = x is defined and a NaN label would spoil it
        return 0.25 * jnp.log(jnp.maximum(ratio, jnp.finfo(ratio.dtype).tiny))

    def _input_std(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.sqrt((alpha * self.data_std) ** 2 + sigma**2)


class NoisePrediction(AbstractUnitInput):
    r"""The network predicts the noise, $F = \epsilon$: $D = (x - \sigma F)/\alpha$.

    The denoiser is ill-conditioned where $\sigma/\alpha$ is large: an error of $F$ is multiplied by that.
    Ho et al. (2020), eq. 12 and 15, https://arxiv.org/abs/2006.11239.

    Fields: `data_std` > 0, standard deviation of the data, for the scale of the input.
    """

    data_std: Scalar = 1.0

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / alpha

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma / alpha

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.zeros_like(sigma)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.ones_like(sigma)


class DataPrediction(AbstractUnitInput):
    r"""The network predicts the clean data, $F = D$: $\epsilon = (x - \alpha F)/\sigma$.

    The noise is ill-conditioned where $\sigma/\alpha$ is small. Salimans and Ho (2022), section 4,
    https://arxiv.org/abs/2202.00512.

    Fields: `data_std` > 0, standard deviation of the data, for the scale of the input.
    """

    data_std: Scalar = 1.0

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.zeros_like(sigma)

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.ones_like(sigma)

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / sigma

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -alpha / sigma


class VelocityPrediction(AbstractUnitInput):
    r"""The network predicts $F = v = \alpha\epsilon - \sigma x_0$.

    $D = (\alpha x - \sigma F)/(\alpha^2 + \sigma^2)$ and $\epsilon = (\sigma x + \alpha F)/(\alpha^2 + \sigma^2)$. The target has
    unit scale where $\alpha^2 + \sigma^2 = 1$; for the variance-exploding processes it grows like $\sigma$, and
    `EDMPreconditioner(data_std=1)` is the same prediction at unit scale.
    Salimans and Ho (2022), appendix D, https://arxiv.org/abs/2202.00512.

    Fields: `data_std` > 0, standard deviation of the data, for the scale of the input.
    """

    data_std: Scalar = 1.0

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return alpha / (alpha**2 + sigma**2)

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma / (alpha**2 + sigma**2)

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma / (alpha**2 + sigma**2)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return alpha / (alpha**2 + sigma**2)


class ScorePrediction(AbstractUnitInput):
    r"""The network predicts the score, $F = s$: $\epsilon = -\sigma F$ and $D = (x + \sigma^2 F)/\alpha$.

    The target grows like $1/\sigma$ towards the data. Published networks divide their output by $\sigma$ for that
    reason, which makes them `NoisePrediction` with the opposite sign.
    Song and Ermon (2019), section 4, https://arxiv.org/abs/1907.05600.

    Fields: `data_std` > 0, standard deviation of the data, for the scale of the input.
    """

    data_std: Scalar = 1.0

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / alpha

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma**2 / alpha

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return jnp.zeros_like(sigma)

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma


class EDMPreconditioner(AbstractUnitInput):
    r"""EDM's preconditioner, for any affine process: input and target have unit variance at every noise level.

    In the variable $x/\alpha$, whose noise is $\sigma/\alpha$, these are the published coefficients; in $x$ itself, with
    the data's standard deviation $s_d$ and $r^2 = \alpha^2 s_d^2 + \sigma^2$: $c_{skip} = \alpha s_d^2/r^2$,
    $c_{out} = \sigma s_d/r$, $c_{in} = 1/r$, $c_{noise} = \tfrac14 \log(\sigma/\alpha)$, and for the noise
    $n_{skip} = \sigma/r^2$, $n_{out} = -\alpha s_d/r$. A network that returns 0 gives the exact score of
    $N(0, s_d^2 I)$ data. Karras et al. (2022), table 1 and appendix B.6, https://arxiv.org/abs/2206.00364.

    Fields: `data_std` > 0, the paper's $\sigma_{data}$: standard deviation of the data.
    """

    data_std: Scalar = 0.5

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def c_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return alpha * (self.data_std / self._input_std(alpha, sigma)) ** 2

    def c_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma * self.data_std / self._input_std(alpha, sigma)

    def n_skip(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma / self._input_std(alpha, sigma) ** 2

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -alpha * self.data_std / self._input_std(alpha, sigma)
