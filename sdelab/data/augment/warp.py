r"""Images under affine maps, without aliasing: upsampled by 2 with a wavelet, read bilinearly, downsampled again.

The low-pass filter $h$ of the wavelet is orthogonal to its even shifts, so that upsampling with it followed by
downsampling is the identity. Karras et al. (2020), appendix B.2, https://arxiv.org/abs/2006.06676.
"""

import functools
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from sdelab.data.augment.affine import Matrix, chain, scaling, translation

SYM6 = np.array(
    [
        0.015404109327027373,
        0.0034907120842174702,
        -0.11799011114819057,
        -0.048311742585633,
        0.4910559419267466,
        0.787641141030194,
        0.3379294217276218,
        -0.07263752278646252,
        -0.021060292512300564,
        0.04472490177066578,
        0.0017677118642428036,
        -0.007800708325034148,
    ]
)
r"""Low-pass filter of Daubechies' symlet with six vanishing moments, $\sum h = \sqrt 2$.

Daubechies, *Ten Lectures on Wavelets* (1992), table 6.3.
"""

Image: TypeAlias = Float[Array, "_ _ channels"]

_PHASE = float(np.arange(len(SYM6)) @ SYM6 / np.sqrt(2.0)) - 5.0
"""Where the filter has its centre, in pixels of the fine image: not quite on one, and a map must turn about the centre.

The published code leaves these 0.1 fine pixels out; with 0 here, images are its images to 1e-5.
"""

_EXTRA = len(SYM6) // 4
"""Pixels beyond the border that the downsampling reads."""


def warp(image: Float[Array, "height width channels"], inverse: Matrix) -> Float[Array, "height width channels"]:
    r"""The image seen through an affine map: the output at $(x, y)$ is the image at `inverse` $(x, y, 1)^T$.

    Coordinates are in pixels from the middle of the image, $x$ to the right and $y$ downwards. What is read beyond the
    border is the mirrored image, one reflection on each side, and 0 beyond that.
    """
    height, width, _ = image.shape
    fine = _both_axes(image, _upsampling(height), _upsampling(width))
    # Coarse pixel i becomes fine pixel 2 i: from the middles of both, u -> 2 u - 1/2.
    offset = 0.5 - _PHASE
    to_fine = chain(translation(-offset, -offset), scaling(2.0, 2.0))
    to_coarse = chain(scaling(0.5, 0.5), translation(offset, offset))
    shape = (2 * (height + 2 * _EXTRA), 2 * (width + 2 * _EXTRA))
    moved = _read(fine, chain(to_fine, inverse, to_coarse), shape)
    return _both_axes(moved, _downsampling(height), _downsampling(width))


@functools.cache
def _upsampling(size: int) -> np.ndarray:
    """The matrix `(2 (3 size - 2), size)`: mirrors on both sides, puts zeros between, filters."""
    mirrored = np.pad(np.arange(size), size - 1, mode="reflect")
    matrix = np.zeros((2 * len(mirrored), size))
    for i, source in enumerate(mirrored):
        for tap, weight in enumerate(SYM6):
            row = 2 * i + tap - 5
            if 0 <= row < len(matrix):
                matrix[row, source] += weight
    return matrix


@functools.cache
def _downsampling(size: int) -> np.ndarray:
    """The matrix `(size, 2 (size + 2 _EXTRA))`: filters, takes every second pixel, leaves out what is beyond the border."""
    matrix = np.zeros((size, 2 * (size + 2 * _EXTRA)))
    for row in range(size):
        start = 2 * (row + _EXTRA) - 5
        matrix[row, start : start + len(SYM6)] = SYM6
    return matrix


def _both_axes(image: Image, rows: np.ndarray, columns: np.ndarray) -> Image:
    left, right = (jnp.asarray(matrix, image.dtype) for matrix in (rows, columns))
    return jnp.einsum("ih,hwc,jw->ijc", left, image, right, precision=lax.Precision.HIGHEST)


def _read(image: Image, inverse: Matrix, shape: tuple[int, int]) -> Image:
    """The image at `inverse` of each pixel of an image of `shape`: bilinear, 0 outside."""
    height, width, _ = image.shape
    y, x = jnp.meshgrid(_centred(shape[0]), _centred(shape[1]), indexing="ij")
    points = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)
    source = jnp.einsum("ij,yxj->iyx", inverse, points, precision=lax.Precision.HIGHEST)
    column, row = source[0] + 0.5 * (width - 1), source[1] + 0.5 * (height - 1)
    left, top = jnp.floor(column), jnp.floor(row)
    value = jnp.zeros((*shape, image.shape[-1]), image.dtype)
    for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1.0 - jnp.abs(row - top - di)) * (1.0 - jnp.abs(column - left - dj))
        value += weight[..., None] * _pixels(image, top + di, left + dj)
    return value


def _pixels(image: Image, row: Array, column: Array) -> Image:
    inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
    i = jnp.clip(row, 0, image.shape[0] - 1).astype(jnp.int32)
    j = jnp.clip(column, 0, image.shape[1] - 1).astype(jnp.int32)
    return jnp.where(inside[..., None], image[i, j], jnp.zeros((), image.dtype))


def _centred(size: int) -> Array:
    return jnp.arange(size, dtype=jnp.float32) - 0.5 * (size - 1)
