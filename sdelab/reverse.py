r"""The reverse process, which carries the prior back to the data.

For every $c \ge 0$ the marginals of $dx = [f - \tfrac12 (1 + c^2) g^2 s]\,dt + c\,g\,d\bar w$, run backwards in time
with the score $s$ of the forward process, are those of the forward process. $c$ is the *stochasticity*: 1 is
Anderson's reverse SDE, 0 the probability flow. Song et al. (2021), eq. 6, eq. 13 and appendix D,
https://arxiv.org/abs/2011.13456; Zhang and Chen (2021), https://arxiv.org/abs/2110.07579.
"""

import abc
import dataclasses
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractClassVar, AbstractVar
from jaxtyping import Array, ArrayLike, Float

from sdelab._broadcast import expand_right
from sdelab._callable import as_pytree_callable
from sdelab._checks import check_nonnegative, is_concrete
from sdelab._typing import Scalar, State, Time
from sdelab.score.base import AbstractScore, Score
from sdelab.sde import AbstractAffineSDE, AbstractSDE


class AbstractReverseProcess(eqx.Module):
    """A forward process, its score, and what the score is conditioned on.

    `condition` is passed to the score as its third argument when it is not None: a pytree of arrays whose leading
    axis is the batch.
    """

    sde: AbstractVar[AbstractSDE]
    score: AbstractVar[Score]
    condition: AbstractVar[Any]
    stochastic: AbstractClassVar[bool]

    @abc.abstractmethod
    def noise_level(self) -> Scalar:
        """The stochasticity $c >= 0$."""

    def drift(self, x: State, t: Time) -> State:
        r"""$f - \tfrac12 (1 + c^2) g^2 s$ in forward time, of the shape of `x`: solvers integrate it backwards."""
        return self.sde.drift(x, t) - expand_right(self.score_weight() * self.sde.diffusion(t) ** 2, x) * self.evaluate(
            x, t
        )

    def diffusion(self, t: Time) -> Float[Array, "..."]:
        r"""$c\,g(t)$, of the shape of `t`."""
        return self.noise_level() * self.sde.diffusion(t)

    def score_weight(self) -> Scalar:
        r"""$\tfrac12 (1 + c^2)$, the factor of $g^2 s$ in the drift."""
        return 0.5 * (1.0 + self.noise_level() ** 2)

    def evaluate(self, x: State, t: Time) -> State:
        """The score at `(x, t)`, under the condition."""
        score = self.score(x, t) if self.condition is None else self.score(x, t, self.condition)
        if score.shape != x.shape:
            raise ValueError(f"the score of x of shape {x.shape} has shape {score.shape}; accepted: the shape of x.")
        return score

    def denoise(self, x: State, t: Time) -> State:
        r"""$E[x_0 \mid x_t = x]$, one evaluation. Errors: a process without a kernel."""
        sde = require_affine(self.sde, "denoise")
        if isinstance(self.score, AbstractScore):
            return self.score.denoise(x, t, self.condition)
        return sde.denoise(x, t, self.evaluate(x, t))

    def noise(self, x: State, t: Time) -> State:
        r"""$E[\epsilon \mid x_t = x] = -\sigma s$, one evaluation. Errors: a process without a kernel."""
        sde = require_affine(self.sde, "noise")
        if isinstance(self.score, AbstractScore):
            return self.score.noise(x, t, self.condition)
        return sde.noise_from_score(self.evaluate(x, t), t)

    def given(self, condition: Any) -> Self:
        """The same process with another condition."""
        return dataclasses.replace(self, condition=condition)


class ReverseSDE(AbstractReverseProcess):
    r"""The reverse SDE $dx = [f - \tfrac12 (1 + c^2) g^2 s]\,dt + c\,g\,d\bar w$.

    Fields: `sde`; `score`, a callable `(x, t)`; `stochasticity` c >= 0; `condition`, passed on to the score.
    """

    sde: AbstractSDE
    score: Score = eqx.field(converter=as_pytree_callable)
    stochasticity: Scalar = 1.0
    condition: Any = None
    stochastic: ClassVar[bool] = True

    def __check_init__(self):
        check_nonnegative(stochasticity=self.stochasticity)
        check_process(self.sde)
        check_score(self.score, self.sde)

    def noise_level(self) -> Scalar:
        return self.stochasticity


class ProbabilityFlow(AbstractReverseProcess):
    r"""The probability flow $dx = [f - \tfrac12 g^2 s]\,dt$: deterministic, with the marginals of the forward process.

    Fields: `sde`; `score`, a callable `(x, t)`; `condition`, passed on to the score.
    """

    sde: AbstractSDE
    score: Score = eqx.field(converter=as_pytree_callable)
    condition: Any = None
    stochastic: ClassVar[bool] = False

    def __check_init__(self):
        check_process(self.sde)
        check_score(self.score, self.sde)

    def noise_level(self) -> Scalar:
        return 0.0


def check_process(sde: AbstractSDE) -> None:
    if not isinstance(sde, AbstractSDE):
        raise TypeError(f"sde = {sde!r} is not a forward process; accepted: an instance of sdelab.AbstractSDE.")


def check_score(score: Score, sde: AbstractSDE) -> None:
    """A score that knows its process must know this one, up to the interval, which is no part of the mathematics."""
    if not isinstance(score, AbstractScore) or not is_concrete(score.sde, sde):
        return
    theirs, ours = jax.tree.leaves(score.sde), jax.tree.leaves(sde)
    alike = type(score.sde) is type(sde) and len(theirs) == len(ours)
    if not alike or not all(_close(a, b) for a, b in zip(theirs, ours, strict=True)):
        raise ValueError(f"sde = {sde!r} is not the process of the score, {score.sde!r}; accepted: the same process.")


def _close(a: ArrayLike, b: ArrayLike) -> bool:
    if type(a) is float and type(b) is float and a == b:
        return True
    return bool(np.allclose(a, b, rtol=1e-6))


def require_affine(sde: AbstractSDE, user: str) -> AbstractAffineSDE:
    """`sde` as an affine process, or an error that says who needs the kernel."""
    if not isinstance(sde, AbstractAffineSDE):
        raise TypeError(
            f"{user} needs a process with a kernel N(alpha x0, sigma^2 I), a sdelab.AbstractAffineSDE; "
            f"{type(sde).__name__} gives drift and diffusion only."
        )
    return sde


def ends_at_data(sde: AbstractSDE, end: float) -> bool:
    """Whether sigma = 0 at the end of the grid. It is a matter of structure, so traced numbers stand aside for 1."""
    if end > 0 or not isinstance(sde, AbstractAffineSDE):
        return False
    plain = jax.tree.map(lambda leaf: leaf if is_concrete(leaf) else 1.0, sde)
    with jax.ensure_compile_time_eval():
        return float(jnp.max(plain.sigma(0.0))) == 0.0
