"""Weights of the noise levels in a loss."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import check_finite, check_positive
from sdelab._typing import Scalar, Time
from sdelab.reverse import require_affine
from sdelab.sde import AbstractAffineSDE, AbstractSDE


class AbstractWeighting(eqx.Module):
    r"""The weight $\lambda(t)$ of $\|s - \nabla\log p(x_t \mid x_0)\|^2$.

    An author gives $\lambda/\sigma^2$, the weight of the same loss in units of the noise, because $\lambda$ and
    $1/\sigma^2$ alone leave the range of float32 digits towards the data. Song et al. (2021), eq. 7,
    https://arxiv.org/abs/2011.13456.
    """

    @abc.abstractmethod
    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        r"""$\lambda(t)/\sigma(t)^2$, the weight of $\|\epsilon_\theta - \epsilon\|^2$, of the shape of `t`."""

    def data_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        r"""$\lambda \alpha^2/\sigma^4$, the weight of $\|D - x_0\|^2$, of the shape of `t`."""
        return (sde.alpha(t) / sde.sigma(t)) ** 2 * self.noise_weight(sde, t)

    def __call__(self, sde: AbstractSDE, t: Time) -> Float[Array, "..."]:
        r"""$\lambda(t)$, of the shape of `t`. Errors: a process without a kernel, for weightings that are made of it."""
        affine = require_affine(sde, f"{type(self).__name__} (DiffusionSquared() does without)")
        return affine.sigma(t) ** 2 * self.noise_weight(affine, t)


class SigmaSquared(AbstractWeighting):
    r"""$\lambda = \sigma^2$: the error of the predicted noise counts alike at all times.

    Song et al. (2021), section 3.3, https://arxiv.org/abs/2011.13456; Ho et al. (2020), eq. 14,
    https://arxiv.org/abs/2006.11239.
    """

    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return jnp.ones_like(sde.sigma(t))


class DiffusionSquared(AbstractWeighting):
    r"""$\lambda = g^2$: the loss bounds the negative log-likelihood of the data.

    Its variance is large near the data, where $g^2/\sigma^2$ is; `ImportanceSampledTime` takes it away. As $\lambda$ alone it
    needs no kernel. Song, Durkan, Murray and Ermon (2021), theorem 1, https://arxiv.org/abs/2101.09258.
    """

    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return (sde.diffusion(t) / sde.sigma(t)) ** 2

    def __call__(self, sde: AbstractSDE, t: Time) -> Float[Array, "..."]:
        return sde.diffusion(t) ** 2


class EDMWeighting(AbstractWeighting):
    r"""EDM's: the output of `EDMPreconditioner`'s network has unit weight and unit target at every noise level.

    With $r = \sigma/\alpha$ and the data's standard deviation $s_d$ the weight of $\|D - x_0\|^2$ is
    $\frac{r^2 + s_d^2}{(r s_d)^2}$, hence that of the noise $1 + r^2/s_d^2$. With $s_d = 1$ under a variance-preserving process it
    weighs the error of the velocity alike. Karras et al. (2022), table 1 and appendix B.6, https://arxiv.org/abs/2206.00364.

    Fields: `data_std` > 0, the paper's $\sigma_{data}$.
    """

    data_std: Scalar = 0.5

    def __check_init__(self):
        check_positive(data_std=self.data_std)

    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return 1.0 + (sde.sigma(t) / (sde.alpha(t) * self.data_std)) ** 2


class MinSNR(AbstractWeighting):
    r"""Min-SNR-$\gamma$: the weight of $\|D - x_0\|^2$ is $\min(\mathrm{SNR}, \gamma)$, $\mathrm{SNR} = \alpha^2/\sigma^2$.

    That of the noise is $\min(1, \gamma/\mathrm{SNR})$: it falls towards the data, where SNR > $\gamma$.
    Hang et al. (2023), section 3.4, https://arxiv.org/abs/2303.09556.

    Fields: `gamma` > 0.
    """

    gamma: Scalar = 5.0

    def __check_init__(self):
        check_positive(gamma=self.gamma)

    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return jnp.minimum(self.gamma * (sde.sigma(t) / sde.alpha(t)) ** 2, 1.0)


class SoftMinSNR(AbstractWeighting):
    r"""Soft-min-SNR: the weight of $\|D - x_0\|^2$ is $\frac{1}{1/\mathrm{SNR} + 1/\gamma}$, `MinSNR` without its corner.

    That of the noise is $\frac{\gamma}{\gamma + \mathrm{SNR}}$. Crowson et al. (2024), on loss weighting,
    https://arxiv.org/abs/2401.11605.

    Fields: `gamma` > 0, 4 as published.
    """

    gamma: Scalar = 4.0

    def __check_init__(self):
        check_positive(gamma=self.gamma)

    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        level = self.gamma * (sde.sigma(t) / sde.alpha(t)) ** 2
        return level / (level + 1.0)


class SigmoidSNR(AbstractWeighting):
    r"""Sigmoid weighting: $\lambda = g^2\,\mathrm{sigmoid}(b - \mathrm{log\_snr})$, the likelihood's weight faded out towards the data.

    Per unit of log-SNR, $-\frac{d}{dt}\mathrm{log\_snr} = g^2/\sigma^2$, the weight of the noise is
    $w = \mathrm{sigmoid}(b - \mathrm{log\_snr})$: a monotone weighting, for which the loss is a likelihood bound of data with noise
    added. `ImportanceSampledTime` makes times uniform in log-SNR.
    Kingma and Gao (2023), https://arxiv.org/abs/2303.00848; Hoogeboom et al. (2024), https://arxiv.org/abs/2410.19324.

    Fields: `bias` b, the log-SNR at which the weight is one half.
    """

    bias: Scalar = 2.0

    def __check_init__(self):
        check_finite(bias=self.bias)

    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return jax.nn.sigmoid(self.bias - sde.log_snr(t)) * (sde.diffusion(t) / sde.sigma(t)) ** 2
