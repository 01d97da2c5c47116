r"""Correctors: Langevin steps at a fixed time, which move a sample towards $p_t$ and leave $p_t$ nearly invariant.

Every step is $x \mapsto x + \epsilon s(x, t) + \sqrt{2\epsilon}\,z$. Only a step size that depends neither on the state nor on
the noise it is used with keeps the invariance: on a Gaussian of standard deviation $\tau$, the step
$\epsilon = 2 (\mathrm{snr}\,\tau)^2$ has the stationary variance $\tau^2/(1 - \mathrm{snr}^2)$.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._broadcast import event_size, expand_right, sum_event
from sdelab._checks import check_count, check_instance, check_nonnegative, check_positive
from sdelab._typing import Scalar, State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.discretization import DDPM, table_index


class AbstractCorrector(eqx.Module):
    """A number of steps at one time. `correct` returns the state and its mean before the last noise."""

    @abc.abstractmethod
    def correct(
        self, process: AbstractReverseProcess, x: State, t: Float[Array, ""], noise: Float[Array, "draws batch ..."]
    ) -> tuple[State, State]:
        """The corrected state and the noiseless result of the last step, of the shape of `x`."""

    @abc.abstractmethod
    def count(self) -> int:
        """Number of steps: evaluations of the score, and normal arrays, per correction."""


class AbstractLangevinNorms(eqx.Module):
    r"""What stands for $\|z\|$ and $\|s\|$ in the step size $2\,(\mathrm{snr}\,\|z\|/\|s\|)^2$."""

    @abc.abstractmethod
    def ratio(
        self, process: AbstractReverseProcess, t: Float[Array, ""], score: State, z: State
    ) -> Float[Array, "..."]:
        r"""$\|z\|/\|s\|$, a scalar or one number per sample."""


class ExpectedNorms(AbstractLangevinNorms):
    r"""Norms in expectation: $\|z\| = \sqrt d$ and $\|s\| = \sqrt d/\sqrt{\alpha^2 \mathrm{data\_std}^2 + \sigma^2}$.

    The second is exact for Gaussian data of standard deviation `data_std`. The default 0 takes the norm of the
    kernel's score, $\sqrt d/\sigma$: by Jensen's inequality the largest that any data can have, so that the step is
    stable on all of them. It depends neither on the state nor on the noise, and leaves $p_t$ invariant as snr -> 0.
    """

    data_std: Scalar = 0.0

    def __check_init__(self):
        check_nonnegative(data_std=self.data_std)

    def ratio(
        self, process: AbstractReverseProcess, t: Float[Array, ""], score: State, z: State
    ) -> Float[Array, "..."]:
        sde = require_affine(process.sde, "Langevin")
        return jnp.sqrt((sde.alpha(t) * self.data_std) ** 2 + sde.sigma(t) ** 2)


class SampleNorms(AbstractLangevinNorms):
    r"""Each sample's own norms. Not invariant, and unstable where $\|s\|$ passes through zero (in low dimension)."""

    def ratio(
        self, process: AbstractReverseProcess, t: Float[Array, ""], score: State, z: State
    ) -> Float[Array, "..."]:
        return _norms(z) / _norms(score)


class BatchNorms(AbstractLangevinNorms):
    """Norms averaged over the batch, as published: a sample then depends on its companions."""

    def ratio(
        self, process: AbstractReverseProcess, t: Float[Array, ""], score: State, z: State
    ) -> Float[Array, "..."]:
        return jnp.mean(_norms(z)) / jnp.mean(_norms(score))


class AbstractDamping(eqx.Module):
    """A factor of the corrector's step size."""

    @abc.abstractmethod
    def factor(self, t: Float[Array, ""]) -> Float[Array, ""] | float: ...


class NoDamping(AbstractDamping):
    """Factor 1: the published rule for VE, and ours for every process."""

    def factor(self, t: Float[Array, ""]) -> Float[Array, ""] | float:
        return 1.0


class TableDamping(AbstractDamping):
    r"""Factor $1 - \beta_i$ of a `DDPM` table, as score_sde has it for VP (it depends on N, and tends to 1 with it)."""

    table: DDPM = eqx.field(default_factory=DDPM)

    def factor(self, t: Float[Array, ""]) -> Float[Array, ""] | float:
        return 1.0 - self.table.beta(table_index(t, self.table.n)).astype(t.dtype)


class Langevin(AbstractCorrector):
    r"""Langevin corrector, $\epsilon = 2\,(\mathrm{snr}\,\|z\|/\|s\|)^2$. Song et al. (2021), algorithms 4 and 5 (appendix G),
    https://arxiv.org/abs/2011.13456.

    Fields: `snr` > 0, the signal-to-noise ratio r of a step; `steps` >= 1; `norms`: `ExpectedNorms()` (the default,
    for any affine process), or, to reproduce published runs and not invariant, `BatchNorms()`, `SampleNorms()`;
    `damping`: `NoDamping()`, or the published `TableDamping(table)`.
    """

    snr: Scalar = 0.16
    steps: int = eqx.field(default=1, static=True)
    norms: AbstractLangevinNorms = eqx.field(default_factory=ExpectedNorms)
    damping: AbstractDamping = eqx.field(default_factory=NoDamping)

    def __check_init__(self):
        check_positive(snr=self.snr)
        check_count(steps=self.steps)
        check_instance(AbstractLangevinNorms, norms=self.norms)
        check_instance(AbstractDamping, damping=self.damping)

    def correct(
        self, process: AbstractReverseProcess, x: State, t: Float[Array, ""], noise: Float[Array, "draws batch ..."]
    ) -> tuple[State, State]:
        def step(x: State, z: State) -> tuple[State, State]:
            score = process.evaluate(x, t)
            size = 2.0 * self.damping.factor(t) * (self.snr * self.norms.ratio(process, t, score, z)) ** 2
            return _langevin_step(x, score, z, size)

        return _repeat(step, x, noise)

    def count(self) -> int:
        return self.steps


class AnnealedLangevin(AbstractCorrector):
    r"""Annealed Langevin dynamics, $\epsilon = 2\,(\mathrm{snr}\,\sigma(t))^2$: a step in units of the noise level.

    Song and Ermon (2019), algorithm 1, https://arxiv.org/abs/1907.05600; Song et al. (2021), appendix G.

    It is the step of `Langevin` with its default norms.

    Fields: `snr` > 0; `steps` >= 1; `damping`: `NoDamping()`, or the published `TableDamping(table)` for VP.
    """

    snr: Scalar = 0.16
    steps: int = eqx.field(default=1, static=True)
    damping: AbstractDamping = eqx.field(default_factory=NoDamping)

    def __check_init__(self):
        check_positive(snr=self.snr)
        check_count(steps=self.steps)
        check_instance(AbstractDamping, damping=self.damping)

    def correct(
        self, process: AbstractReverseProcess, x: State, t: Float[Array, ""], noise: Float[Array, "draws batch ..."]
    ) -> tuple[State, State]:
        sigma = require_affine(process.sde, "AnnealedLangevin").sigma(t)
        size = 2.0 * self.damping.factor(t) * (self.snr * sigma) ** 2
        return _repeat(lambda x, z: _langevin_step(x, process.evaluate(x, t), z, size), x, noise)

    def count(self) -> int:
        return self.steps


def _langevin_step(x: State, score: State, z: State, size: Float[Array, "..."]) -> tuple[State, State]:
    x_mean = x + expand_right(size, x) * score
    return x_mean + expand_right(jnp.sqrt(2.0 * size), x) * z, x_mean


def _repeat(step, x: State, noise: Float[Array, "draws batch ..."]) -> tuple[State, State]:
    """One trace of the score however many steps there are."""
    if noise.shape[0] == 1:
        return step(x, noise[0])
    (x, x_mean), _ = jax.lax.scan(lambda carry, z: (step(carry[0], z), None), (x, x), noise)
    return x, x_mean


def _norms(x: State) -> Float[Array, " batch"]:
    if event_size(x.shape) == 1:
        return jnp.abs(x.reshape(x.shape[0]))
    return jnp.sqrt(sum_event(x**2))
