import abc
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from sdelab._checks import check_instance
from sdelab._typing import State
from sdelab.reverse import AbstractReverseProcess, require_affine
from sdelab.solvers.base import AbstractReverseSolver, Interval, PastTimes, Step, check_kind
from sdelab.solvers.corrector import AbstractCorrector, Langevin
from sdelab.solvers.reverse_diffusion import ReverseDiffusion


class AbstractSequence(eqx.Module):
    """Which comes first, predictor or corrector."""

    @abc.abstractmethod
    def advance(
        self,
        predictor: AbstractReverseSolver,
        corrector: AbstractCorrector,
        process: AbstractReverseProcess,
        x: State,
        interval: Interval,
        memory: Any,
    ) -> Step: ...

    @abc.abstractmethod
    def corrections(self, steps: int, to_data: bool) -> int:
        """How often the corrector is called."""


class CorrectorFirst(AbstractSequence):
    """The corrector at $t_0$, then the predictor to $t_1$: the order of the published code."""

    def advance(self, predictor, corrector, process, x: State, interval: Interval, memory: Any) -> Step:
        x, _ = corrector.correct(process, x, interval.t0, interval.noise[: corrector.count()])
        return predictor.advance(process, x, _only_noise(interval, slice(corrector.count(), None)), memory)

    def corrections(self, steps: int, to_data: bool) -> int:
        return steps


class PredictorFirst(AbstractSequence):
    r"""The predictor to $t_1$, then the corrector there: the order of the paper's algorithm 1.

    The mean of a step is the predictor's. Where $\sigma(t_1) = 0$ there is nothing to correct, and no evaluation.
    """

    def advance(self, predictor, corrector, process, x: State, interval: Interval, memory: Any) -> Step:
        step = predictor.advance(process, x, _only_noise(interval, slice(predictor.draws())), memory)
        sigma = require_affine(process.sde, "PredictorFirst").sigma(interval.t1)
        z = interval.noise[predictor.draws() :]
        x = interval.at_data(
            sigma <= 0.0, lambda x: x, lambda x: corrector.correct(process, x, interval.t1, z)[0], step.x
        )
        return Step(x, step.x_mean, step.memory)

    def corrections(self, steps: int, to_data: bool) -> int:
        return steps - (1 if to_data else 0)


class PredictorCorrector(AbstractReverseSolver):
    """Predictor–corrector sampling: a solver for the interval, and Langevin steps at one of its ends.

    `evaluations` a step: the predictor's and one for each step of the corrector.
    Song et al. (2021), algorithm 1 and appendix G, https://arxiv.org/abs/2011.13456.

    Fields: `predictor`, a stochastic solver of sdelab; `corrector`; `sequence`: `CorrectorFirst()` as published code does
    (the default) or `PredictorFirst()` as the paper's algorithm does.
    """

    predictor: AbstractReverseSolver = eqx.field(default_factory=ReverseDiffusion)
    corrector: AbstractCorrector = eqx.field(default_factory=Langevin)
    sequence: AbstractSequence = eqx.field(default_factory=CorrectorFirst)
    kind: ClassVar = "stochastic"

    def __check_init__(self):
        check_instance(AbstractReverseSolver, predictor=self.predictor)
        check_instance(AbstractCorrector, corrector=self.corrector)
        check_instance(AbstractSequence, sequence=self.sequence)
        if self.predictor.kind != "stochastic":
            raise TypeError(
                f"predictor = {self.predictor!r} is deterministic; accepted: a stochastic solver of sdelab."
            )

    def advance(self, process: AbstractReverseProcess, x: State, interval: Interval, memory: Any) -> Step:
        return self.sequence.advance(self.predictor, self.corrector, process, x, interval, memory)

    def check(self, process: AbstractReverseProcess) -> None:
        check_kind("PredictorCorrector", "stochastic", process)
        self.predictor.check(process)
        require_affine(process.sde, "PredictorCorrector")

    def inner_fractions(self) -> tuple[float, ...]:
        return self.predictor.inner_fractions()

    def inner_times(self, process: AbstractReverseProcess, starts: Array, ends: Array) -> Float[Array, "steps inner"]:
        return self.predictor.inner_times(process, starts, ends)

    def numbers(self, process: AbstractReverseProcess, interval: Interval, past: PastTimes) -> Any:
        return self.predictor.numbers(process, interval, past)

    def remembers(self) -> int:
        return self.predictor.remembers()

    def opening(self) -> int:
        return self.predictor.opening()

    def initial_memory(self, process: AbstractReverseProcess, x: State) -> Any:
        return self.predictor.initial_memory(process, x)

    def evaluations(self, steps: int, to_data: bool) -> int:
        corrections = self.sequence.corrections(steps, to_data)
        return self.predictor.evaluations(steps, to_data) + corrections * self.corrector.count()

    def draws(self) -> int:
        return self.predictor.draws() + self.corrector.count()


def _only_noise(interval: Interval, part: slice) -> Interval:
    return eqx.tree_at(lambda i: i.noise, interval, interval.noise[part])
