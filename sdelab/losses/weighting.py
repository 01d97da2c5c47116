"""Weights of the noise levels in a loss."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._typing import Time
from sdelab.sde import AbstractAffineSDE


class AbstractWeighting(eqx.Module):
    r"""The weight $\lambda(t)$ of $\|s - \nabla\log p(x_t \mid x_0)\|^2$.

    An author gives $\lambda/\sigma^2$, the weight of the same loss in units of the noise, because $\lambda$ and
    $1/\sigma^2$ alone leave the range of float32 digits towards the data. Song et al. (2021), eq. 7,
    https://arxiv.org/abs/2011.13456.
    """

    @abc.abstractmethod
    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        r"""$\lambda(t)/\sigma(t)^2$, the weight of $\|\epsilon_\theta - \epsilon\|^2$, of the shape of `t`."""

    def __call__(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        r"""$\lambda(t)$, of the shape of `t`."""
        return sde.sigma(t) ** 2 * self.noise_weight(sde, t)


class SigmaSquared(AbstractWeighting):
    r"""$\lambda = \sigma^2$: the error of the predicted noise counts alike at all times.

    Song et al. (2021), section 3.3, https://arxiv.org/abs/2011.13456; Ho et al. (2020), eq. 14,
    https://arxiv.org/abs/2006.11239.
    """

    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return jnp.ones_like(sde.sigma(t))


class DiffusionSquared(AbstractWeighting):
    r"""$\lambda = g^2$: the loss bounds the negative log-likelihood of the data.

    Its variance is large near the data, where $g^2/\sigma^2$ is. Song, Durkan, Murray and Ermon (2021), theorem 1 and
    eq. 7, https://arxiv.org/abs/2101.09258.
    """

    def noise_weight(self, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return (sde.diffusion(t) / sde.sigma(t)) ** 2
