"""In which prediction the error of a score is taken. In exact arithmetic all are one up to the weight."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._typing import State, Time
from sdelab.losses.weighting import AbstractWeighting
from sdelab.score import AbstractScore, Score
from sdelab.sde import AbstractAffineSDE


class AbstractError(eqx.Module):
    r"""The error of a prediction at $x_t = \alpha x_0 + \sigma\epsilon$, and what a weighting makes of it."""

    @abc.abstractmethod
    def __call__(
        self, score: Score, sde: AbstractAffineSDE, xt: State, t: Time, x0: State, eps: State, condition: Any
    ) -> State:
        """Prediction minus truth, of the shape of `xt`."""

    @abc.abstractmethod
    def weight(self, weighting: AbstractWeighting, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        """The weight of the squared error, of the shape of `t`."""


class NoiseError(AbstractError):
    r"""$\epsilon_\theta - \epsilon$ with the weight $\lambda/\sigma^2$. Ho et al. (2020), eq. 12, https://arxiv.org/abs/2006.11239.

    Where $\sigma/\alpha$ is large, $\epsilon_\theta$ is nearly $\epsilon$ and digits of what is left are lost.
    """

    def __call__(
        self, score: Score, sde: AbstractAffineSDE, xt: State, t: Time, x0: State, eps: State, condition: Any
    ) -> State:
        return predicted_noise(score, sde, xt, t, condition) - eps

    def weight(self, weighting: AbstractWeighting, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return weighting.noise_weight(sde, t)


class DataError(AbstractError):
    r"""$D - x_0 = -\frac{\sigma}{\alpha}(\epsilon_\theta - \epsilon)$ with the weight $\lambda \alpha^2/\sigma^4$, as EDM is trained.

    Where $\sigma/\alpha$ is small, $D$ is nearly $x_0$ and digits of what is left are lost.
    Karras et al. (2022), eq. 2, https://arxiv.org/abs/2206.00364.
    """

    def __call__(
        self, score: Score, sde: AbstractAffineSDE, xt: State, t: Time, x0: State, eps: State, condition: Any
    ) -> State:
        return predicted_data(score, sde, xt, t, condition) - x0

    def weight(self, weighting: AbstractWeighting, sde: AbstractAffineSDE, t: Time) -> Float[Array, "..."]:
        return weighting.data_weight(sde, t)


def predicted_noise(score: Score, sde: AbstractAffineSDE, xt: State, t: Time, condition: Any = None) -> State:
    r"""$\epsilon_\theta = -\sigma s$, taken from the score's own `noise` where it has one."""
    if isinstance(score, AbstractScore):
        return score.noise(xt, t, condition)
    return sde.noise_from_score(evaluate(score, xt, t, condition), t)


def predicted_data(score: Score, sde: AbstractAffineSDE, xt: State, t: Time, condition: Any = None) -> State:
    r"""$D = (x + \sigma^2 s)/\alpha$, taken from the score's own `denoise` where it has one."""
    if isinstance(score, AbstractScore):
        return score.denoise(xt, t, condition)
    return sde.denoise(xt, t, evaluate(score, xt, t, condition))


def evaluate(score: Score, xt: State, t: Time, condition: Any = None) -> State:
    """The score at `(xt, t)`, under the condition if there is one. Errors: another shape than that of `xt`."""
    value = score(xt, t) if condition is None else score(xt, t, condition)
    if value.shape != xt.shape:
        raise ValueError(f"the score of x of shape {xt.shape} has shape {value.shape}; accepted: the shape of x.")
    return value


def weighted_square(error: State, weight: Float[Array, "..."]) -> State:
    """The weighted squared error, entry by entry."""
    return expand_right(weight, error) * error**2
