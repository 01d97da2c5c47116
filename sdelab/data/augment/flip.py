import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from sdelab._typing import PRNGKeys
from sdelab.data.augment.base import AbstractAugmentation, Images, Labels


@dataclasses.dataclass(frozen=True)
class HorizontalFlip(AbstractAugmentation):
    """Left and right exchanged with probability 1/2, without a label: the model learns both.

    The flip of Song et al. (2021), appendix H, https://arxiv.org/abs/2011.13456.
    """

    labels: ClassVar[int] = 0

    def __call__(self, keys: PRNGKeys, x: Images) -> tuple[Images, Labels]:
        flipped = jax.vmap(jax.random.bernoulli)(keys)
        x = jnp.where(flipped[:, None, None, None], x[:, :, ::-1], x)
        return x, jnp.zeros((x.shape[0], 0), jnp.float32)
