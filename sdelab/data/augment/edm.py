import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sdelab._checks import check_unit_interval
from sdelab._typing import PRNGKey, PRNGKeys
from sdelab.data.augment.affine import Matrix, chain, rotation, scaling, translation
from sdelab.data.augment.base import AbstractAugmentation, Images, Labels
from sdelab.data.augment.warp import warp

SCALE_STD = 0.2
"""Standard deviation of the base-2 logarithms of the scale and of the stretch."""
SHIFT_STD = 0.125
"""Standard deviation of the shift, in widths and heights of the image."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transformation:
    """What was drawn for an image; all zero does nothing. See `EDMAugmentation`."""

    flips: Float[Array, "*batch 2"]
    scale: Float[Array, "*batch"]
    angle: Float[Array, "*batch"]
    stretch: Float[Array, "*batch"]
    axis: Float[Array, "*batch"]
    shift: Float[Array, "*batch 2"]

    def labels(self) -> Float[Array, "*batch 9"]:
        """The nine numbers that the network is told, in the order of the published networks."""
        stretched = (self.stretch * jnp.cos(self.axis), self.stretch * jnp.sin(self.axis))
        scalars = (self.scale, jnp.cos(self.angle) - 1.0, jnp.sin(self.angle), *stretched)
        return jnp.concatenate([self.flips, jnp.stack(scalars, axis=-1), self.shift], axis=-1)

    def is_affine(self) -> Array:
        """Whether there is more to do than flips, `(*batch,)`."""
        scalars = (self.scale != 0.0) | (self.angle != 0.0) | (self.stretch != 0.0)
        return scalars | jnp.any(self.shift != 0.0, axis=-1)

    def inverse(self, width: int, height: int) -> Matrix:
        """The map of one image from a pixel after it, counted from the middle, to where it came from."""
        size, ratio = 2.0 ** (-SCALE_STD * self.scale), 2.0 ** (-SCALE_STD * self.stretch)
        return chain(
            scaling(size, size),
            rotation(self.angle),
            rotation(-self.axis),
            scaling(ratio, 1.0 / ratio),
            rotation(self.axis),
            translation(-SHIFT_STD * width * self.shift[0], -SHIFT_STD * height * self.shift[1]),
        )


@dataclasses.dataclass(frozen=True)
class EDMAugmentation(AbstractAugmentation):
    r"""The non-leaky augmentation of EDM: flips and a random affine map, whose nine numbers the network is told.

    Each transformation but the first is used with `probability` $p$, independently of the others, in this order. With
    $w \sim N(0, 1)$ throughout, angles counter-clockwise, and labels 0 where a transformation was not used:

    | transformation | drawn | labels |
    |---|---|---|
    | flip left and right | a fair coin, always | $b$ |
    | flip top and bottom | a fair coin | $b$ |
    | scale by $2^{0.2 w}$ | $w$ | $w$ |
    | rotate by $\theta$ | uniform on $[-\pi, \pi)$ | $\cos\theta - 1$, $\sin\theta$ |
    | stretch by $2^{0.2 w}$ along the axis at $r$, by its inverse across | $w$; $r$ uniform or 0, a fair coin | $w \cos r$, $w \sin r$ |
    | shift by $(w_1 / 8, w_2 / 8)$ of width and height, right and down | $w_1, w_2$ | $w_1$, $w_2$ |

    The labels of a stretch are those of the published networks, which do not tell $(w, r)$ from $(-w, r \pm \pi)$.
    An image that no affine map was drawn for is not resampled: it is exactly as it was, or flipped.
    Karras et al. (2022), appendix F.2 and table 6, https://arxiv.org/abs/2206.00364. Field: `probability` in [0, 1],
    0.12 for CIFAR-10, 0.15 for FFHQ and AFHQ.
    """

    probability: float = 0.12
    labels: ClassVar[int] = 9

    def __post_init__(self):
        check_unit_interval(probability=self.probability)

    def __call__(self, keys: PRNGKeys, x: Images) -> tuple[Images, Labels]:
        drawn = jax.vmap(self.draw)(keys)
        return transform(x, drawn), drawn.labels()

    def draw(self, key: PRNGKey) -> Transformation:
        """The transformation of one image."""
        key_used, key_coins, key_normal, key_angles = jax.random.split(key, 4)
        use_flip, use_scale, use_rotation, use_stretch, use_shift = (
            jax.random.uniform(key_used, (5,)) < self.probability
        ).astype(jnp.float32)
        flip_x, flip_y, turned = jax.random.bernoulli(key_coins, shape=(3,)).astype(jnp.float32)
        normal = jax.random.normal(key_normal, (4,))
        angle, axis = jax.random.uniform(key_angles, (2,), minval=-math.pi, maxval=math.pi)
        return Transformation(
            flips=jnp.stack([flip_x, use_flip * flip_y]),
            scale=use_scale * normal[0],
            angle=use_rotation * angle,
            stretch=use_stretch * normal[1],
            axis=turned * axis,
            shift=use_shift * normal[2:],
        )


def transform(x: Images, what: Transformation) -> Images:
    """The images, each after its transformation."""
    flip_x, flip_y = (what.flips[:, i, None, None, None] > 0.5 for i in (0, 1))
    x = jnp.where(flip_x, x[:, :, ::-1], x)
    x = jnp.where(flip_y, x[:, ::-1], x)
    height, width = x.shape[1:3]
    inverse = jax.vmap(lambda one: one.inverse(width, height))(what)
    warped = jax.vmap(warp)(x.astype(jnp.float32), inverse).astype(x.dtype)
    return jnp.where(what.is_affine()[:, None, None, None], warped, x)
