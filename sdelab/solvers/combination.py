"""The numbers of a step of an exponential method, known before the network is asked."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx

from sdelab._typing import State
from sdelab.solvers.base import Step
from sdelab.solvers.newton import ScalarArray


class Combination(eqx.Module):
    """The next state from this one and from predictions of the network."""

    factor: ScalarArray
    weights: tuple[ScalarArray, ...]

    def __call__(self, x: State, values: Sequence[State]) -> State:
        """`factor * x + sum(weights * values)`."""
        total = self.factor * x
        for weight, value in zip(self.weights, values, strict=True):
            total = total + weight * value
        return total


class NoisyCombination(eqx.Module):
    """The mean of a step, and the standard deviation of the noise that it adds."""

    mean: Combination
    std: ScalarArray

    def __call__(self, x: State, values: Sequence[State], z: State, memory: Any = None) -> Step:
        x_mean = self.mean(x, values)
        return Step(x_mean + self.std * z, x_mean, memory)
