"""What happens after the last step: a sample at `t_min` still carries noise of size sigma(t_min)."""

import abc

import equinox as eqx
import jax.numpy as jnp

from sdelab._checks import check_instance
from sdelab._typing import State, Time
from sdelab.reverse import AbstractReverseProcess, ReverseSDE, ends_at_data
from sdelab.solvers.base import AbstractReverseSolver, Interval


class AbstractFinish(eqx.Module):
    """A final denoising step. `end` is the grid's last time, `to_data` whether sigma = 0 there: nothing is left to do."""

    @abc.abstractmethod
    def apply(self, process: AbstractReverseProcess, x: State, x_mean: State | None, end: Time, to_data: bool) -> State:
        """The finished samples. `x_mean` is the last step's mean, None for solvers that have none."""

    @abc.abstractmethod
    def evaluations(self, process: AbstractReverseProcess, to_data: bool) -> int:
        """How often the score is evaluated."""


class NoFinish(AbstractFinish):
    """The state at the grid's end, as it is: samples of $p_{t_{min}}$."""

    def apply(self, process: AbstractReverseProcess, x: State, x_mean: State | None, end: Time, to_data: bool) -> State:
        return x

    def evaluations(self, process: AbstractReverseProcess, to_data: bool) -> int:
        return 0


class Tweedie(AbstractFinish):
    r"""The denoised $E[x_{data} \mid x] = (x + \sigma^2 s)/\alpha$ at the grid's end; one evaluation. Where $\sigma = 0$, nothing.

    Efron (2011), eq. 2.8; Jolicoeur-Martineau et al. (2021), https://arxiv.org/abs/2009.05475.
    """

    def apply(self, process: AbstractReverseProcess, x: State, x_mean: State | None, end: Time, to_data: bool) -> State:
        return x if to_data else process.denoise(x, end)

    def evaluations(self, process: AbstractReverseProcess, to_data: bool) -> int:
        return 0 if to_data else 1


class NoiselessPredictor(AbstractFinish):
    """The mean of the last predictor step, without its noise, as score_sde returns it. No evaluation."""

    def apply(self, process: AbstractReverseProcess, x: State, x_mean: State | None, end: Time, to_data: bool) -> State:
        if x_mean is None:
            raise TypeError(
                "NoiselessPredictor needs a solver whose step has a mean, one of sdelab's own; with a diffrax solver "
                "use Tweedie() or NoiselessStep(solver)."
            )
        return x_mean

    def evaluations(self, process: AbstractReverseProcess, to_data: bool) -> int:
        return 0


class NoiselessStep(AbstractFinish):
    """One more step of a predictor, from the grid's end to t = 0, of which the mean is kept; the predictor's evaluations.

    After a probability flow, a stochastic predictor takes its step on the reverse SDE.
    `NoiselessStep(ReverseDiffusion(DDPM(1000)))` is what score_sde does after its probability flow sampler.
    """

    predictor: AbstractReverseSolver

    def __check_init__(self):
        check_instance(AbstractReverseSolver, predictor=self.predictor)

    def apply(self, process: AbstractReverseProcess, x: State, x_mean: State | None, end: Time, to_data: bool) -> State:
        if to_data:
            return x
        t0 = jnp.asarray(end, x.dtype)
        silence = jnp.zeros((self.predictor.draws(), *x.shape), x.dtype)
        if not process.stochastic and self.predictor.kind == "stochastic":
            process = ReverseSDE(process.sde, process.score, condition=process.condition)
        t1 = jnp.zeros_like(t0)
        inner = self.predictor.inner_times(process, t0[None], t1[None])[0]
        interval = Interval(t0, t1, jnp.zeros((), jnp.int32), jnp.ones((), bool), silence, inner)
        return self.predictor.advance(process, x, interval, self.predictor.initial_memory(process, x)).x_mean

    def evaluations(self, process: AbstractReverseProcess, to_data: bool) -> int:
        return 0 if to_data else self.predictor.evaluations(1, ends_at_data(process.sde, 0.0))
