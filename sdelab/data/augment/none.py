import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from sdelab._typing import PRNGKeys, State
from sdelab.data.augment.base import AbstractAugmentation, Labels


@dataclasses.dataclass(frozen=True)
class NoAugmentation(AbstractAugmentation):
    """Samples as they are, images or not."""

    labels: ClassVar[int] = 0

    def __call__(self, keys: PRNGKeys, x: State) -> tuple[State, Labels]:
        return x, jnp.zeros((x.shape[0], 0), jnp.float32)
