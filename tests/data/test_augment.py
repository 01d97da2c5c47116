"""Augmentation: transformations of images that are known as functions of the plane, and labels that say what was done."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.data.augment import EDMAugmentation, HorizontalFlip
from sdelab.data.augment import warp as eager_warp
from sdelab.data.augment.affine import chain, rotation, scaling, translation
from sdelab.data.augment.edm import Transformation
from sdelab.data.augment.edm import transform as eager_transform
from sdelab.data.augment.warp import SYM6

RANDOM = np.random.RandomState(0)
warp, transform = jax.jit(eager_warp), jax.jit(eager_transform)
NOISE = RANDOM.uniform(-1.0, 1.0, (6, 12, 16, 3)).astype(np.float32)


def keys(count, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


def transformation(count=1, **numbers):
    zeros = {name: np.zeros(count) for name in ("scale", "angle", "stretch", "axis")}
    pairs = {name: np.zeros((count, 2)) for name in ("flips", "shift")}
    given = {name: np.broadcast_to(value, {**zeros, **pairs}[name].shape) for name, value in numbers.items()}
    return Transformation(**{name: jnp.asarray(v, jnp.float32) for name, v in {**zeros, **pairs, **given}.items()})


def picture(x, y):
    """A smooth picture without symmetry, as a function of the plane; three channels."""
    blob = np.exp(-((x - 5.0) ** 2 + (y + 3.0) ** 2) / 120.0)
    other = np.exp(-((x + 6.0) ** 2) / 60.0 - (y - 4.0) ** 2 / 30.0)
    return np.stack([blob, other, blob - 0.5 * other], axis=-1)


def drawn_at(height, width, source=lambda x, y: (x, y)):
    """The picture in pixels, each at the point that `source` says."""
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    return picture(*source(x, y)).astype(np.float32)


def inner(image, margin=12):
    return np.asarray(image)[margin:-margin, margin:-margin]


def test_the_filter_is_the_symlet_with_six_vanishing_moments():
    """These properties, and being closest to symmetric, define it."""
    assert np.sum(SYM6) == pytest.approx(np.sqrt(2.0), abs=1e-12)
    for shift in range(6):
        assert np.dot(SYM6[2 * shift :], SYM6[: 12 - 2 * shift]) == pytest.approx(float(shift == 0), abs=1e-12)
    signs = (-1.0) ** np.arange(12)
    for moment in range(6):
        scale = np.sum(np.abs(SYM6) * np.arange(12.0) ** moment)
        assert np.sum(signs * SYM6 * np.arange(12.0) ** moment) == pytest.approx(0.0, abs=1e-9 * scale)


def test_the_identity_is_the_identity_up_to_the_border():
    """Even of noise: the filters are orthogonal to their even shifts."""
    for image in NOISE:
        np.testing.assert_allclose(warp(jnp.asarray(image), jnp.eye(3)), image, atol=2e-5)


@pytest.mark.parametrize(
    ("inverse", "source"),
    [
        (translation(3.0, 0.0), lambda x, y: (x + 3.0, y)),
        (translation(-0.4, 2.3), lambda x, y: (x - 0.4, y + 2.3)),
        (rotation(0.5), lambda x, y: (np.cos(0.5) * x - np.sin(0.5) * y, np.sin(0.5) * x + np.cos(0.5) * y)),
        (scaling(1.2, 0.8), lambda x, y: (1.2 * x, 0.8 * y)),
        (chain(scaling(0.9, 1.1), translation(1.5, -2.0)), lambda x, y: (0.9 * (x + 1.5), 1.1 * (y - 2.0))),
    ],
)
def test_a_smooth_picture_is_read_where_the_map_says(inverse, source):
    image = jnp.asarray(drawn_at(48, 56))
    np.testing.assert_allclose(inner(warp(image, inverse)), inner(drawn_at(48, 56, source)), atol=4e-3)


def test_what_lies_beyond_the_border_is_mirrored():
    image = NOISE[0]
    moved = np.asarray(warp(jnp.asarray(image), translation(-5.0, 3.0)))
    mirrored = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="reflect")[8 + 3 : 8 + 3 + 12, 8 - 5 : 8 - 5 + 16]
    np.testing.assert_allclose(moved, mirrored, atol=2e-5)


ANGLE, R = 0.4, 0.7


def turn(angle, x, y):
    """Counter-clockwise to the eye: y points down."""
    return np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y


def stretched_back(x, y):
    x, y = turn(-R, x, y)  # the axis at R onto the x axis
    s = 2.0**0.2
    return turn(R, x / s, y * s)


CASES = {
    "scale": (dict(scale=1.5), lambda x, y: (x / 2**0.3, y / 2**0.3), [0, 0, 1.5, 0, 0, 0, 0, 0, 0]),
    "rotation": (
        dict(angle=ANGLE),
        lambda x, y: turn(-ANGLE, x, y),
        [0, 0, 0, np.cos(ANGLE) - 1, np.sin(ANGLE), 0, 0, 0, 0],
    ),
    "stretch along x": (dict(stretch=1.0), lambda x, y: (x / 2**0.2, y * 2**0.2), [0, 0, 0, 0, 0, 1, 0, 0, 0]),
    "stretch along an axis": (
        dict(stretch=1.0, axis=R),
        stretched_back,
        [0, 0, 0, 0, 0, np.cos(R), np.sin(R), 0, 0],
    ),
    "shift right and up": (
        dict(shift=[0.5, -1.0]),
        lambda x, y: (x - 0.5 * 56 / 8, y + 48 / 8),
        [0, 0, 0, 0, 0, 0, 0, 0.5, -1.0],
    ),
    "flip left and right": (dict(flips=[1.0, 0.0]), lambda x, y: (-x, y), [1, 0, 0, 0, 0, 0, 0, 0, 0]),
    "flip top and bottom": (dict(flips=[0.0, 1.0]), lambda x, y: (x, -y), [0, 1, 0, 0, 0, 0, 0, 0, 0]),
    "flip, scale, then shift": (
        dict(flips=[1.0, 0.0], scale=1.0, shift=[0.5, 0.0]),
        lambda x, y: (-(x - 3.5) / 2**0.2, y / 2**0.2),
        [1, 0, 1.0, 0, 0, 0, 0, 0.5, 0],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_transformation_does_what_its_labels_say(name):
    numbers, source, labels = CASES[name]
    what = transformation(**numbers)
    np.testing.assert_allclose(what.labels(), [labels], atol=1e-6)
    image = transform(jnp.asarray(drawn_at(48, 56))[None], what)[0]
    np.testing.assert_allclose(inner(image), inner(drawn_at(48, 56, source)), atol=4e-3)


@pytest.mark.parametrize(
    ("forth", "back"),
    [
        (dict(scale=0.6), dict(scale=-0.6)),
        (dict(angle=0.8), dict(angle=-0.8)),
        (dict(stretch=1.0, axis=0.4), dict(stretch=-1.0, axis=0.4)),
        (dict(shift=[0.3, -0.2]), dict(shift=[-0.3, 0.2])),
    ],
)
def test_a_transformation_and_its_inverse_give_the_image_back(forth, back):
    image = jnp.asarray(drawn_at(48, 56))[None]
    there = transform(image, transformation(**forth))
    assert float(jnp.abs(there - image).max()) > 0.05
    np.testing.assert_allclose(inner(transform(there, transformation(**back))[0]), inner(image[0]), atol=7e-3)


def test_half_turns_and_quarter_turns_permute_pixels():
    """A half turn is both flips, a quarter turn of a square is NumPy's, as far as the filter is symmetric."""
    image = drawn_at(48, 48)
    turned = transform(jnp.asarray(image)[None], transformation(angle=np.pi))[0]
    np.testing.assert_allclose(turned, image[::-1, ::-1], atol=3e-3)
    quarter = transform(jnp.asarray(image)[None], transformation(angle=np.pi / 2))[0]
    np.testing.assert_allclose(quarter, np.rot90(image), atol=3e-3)  # counter-clockwise


def test_flips_are_exact_and_nothing_drawn_is_the_image_bit_for_bit():
    x = jnp.asarray(NOISE)
    flips = [[0, 0], [1, 0], [0, 1], [1, 1], [0, 0], [1, 0]]
    out = np.asarray(transform(x, transformation(6, flips=flips)))
    for image, made, (left_right, top_bottom) in zip(NOISE, out, flips, strict=True):
        image = image[:, ::-1] if left_right else image
        np.testing.assert_array_equal(made, image[::-1] if top_bottom else image)


def test_what_comes_with_an_image_describes_it():
    augmentation, x = EDMAugmentation(probability=0.5), jnp.asarray(NOISE)
    out, labels = jax.jit(augmentation)(keys(6), x)
    drawn = jax.jit(jax.vmap(augmentation.draw))(keys(6))
    np.testing.assert_allclose(out, transform(x, drawn), atol=1e-5)
    np.testing.assert_allclose(labels, drawn.labels(), atol=1e-6)
    assert (labels.shape, labels.dtype, out.dtype) == ((6, 9), jnp.float32, x.dtype)


def test_without_probability_there_are_flips_alone():
    out, labels = jax.jit(EDMAugmentation(probability=0.0))(keys(6), jnp.asarray(NOISE))
    assert not np.any(labels[:, 1:])
    assert 0 < np.sum(labels[:, 0]) < 6
    flip = np.asarray(labels[:, 0, None, None, None]) == 1
    np.testing.assert_array_equal(out, np.where(flip, NOISE[:, :, ::-1], NOISE))


def test_every_transformation_is_as_frequent_and_as_large_as_published():
    n, p = 20_000, 0.12
    drawn = jax.jit(jax.vmap(EDMAugmentation(p).draw))(keys(n))
    labels = np.asarray(drawn.labels(), np.float64)
    error = 4 * np.sqrt(p / n)
    used = [np.asarray(used) for used in (drawn.scale, drawn.angle, drawn.stretch, drawn.shift[:, 0])]
    np.testing.assert_allclose([np.mean(u != 0) for u in used], p, atol=error)
    np.testing.assert_allclose(labels[:, 0].mean(), 0.5, atol=0.015)
    np.testing.assert_allclose(labels[:, 1].mean(), p / 2, atol=error)
    np.testing.assert_allclose(np.mean(used[0] * used[1] != 0), p * p, atol=4 * p / np.sqrt(n))  # independent
    for w in (used[0], used[2], used[3], np.asarray(drawn.shift[:, 1])):
        w = w[w != 0]
        np.testing.assert_allclose([w.mean(), w.std()], [0.0, 1.0], atol=4 / np.sqrt(n * p))
    angle = used[1][used[1] != 0]
    np.testing.assert_allclose(np.abs(np.mean(np.exp(1j * angle))), 0.0, atol=4 / np.sqrt(n * p))
    assert np.abs(angle).max() == pytest.approx(np.pi, rel=0.01)
    axis = np.asarray(drawn.axis)
    np.testing.assert_allclose(np.mean(axis == 0), 0.5, atol=0.015)
    np.testing.assert_allclose(np.hypot(labels[:, 5], labels[:, 6]), np.abs(used[2]), atol=1e-6)


def test_an_image_depends_on_its_own_key_alone():
    augment = jax.jit(EDMAugmentation(0.8))
    whole, labels = augment(keys(6), jnp.asarray(NOISE))
    rows, others = np.array([4, 0, 2]), keys(3, seed=1)
    mixed, mixed_labels = augment(jnp.concatenate([keys(6)[rows], others]), jnp.asarray(NOISE[[4, 0, 2, 1, 1, 1]]))
    np.testing.assert_array_equal(mixed_labels[:3], labels[rows])
    np.testing.assert_allclose(mixed[:3], whole[rows], atol=1e-6)


def test_half_of_all_images_are_flipped_without_a_label():
    x = jnp.asarray(np.broadcast_to(np.arange(4.0, dtype=np.float32)[:, None], (4000, 2, 4, 1)))
    out, labels = HorizontalFlip()(keys(4000), x)
    assert labels.shape == (4000, 0)
    flipped = np.asarray(out[:, 0, 0, 0]) == 3
    np.testing.assert_array_equal(out, np.where(flipped[:, None, None, None], x[:, :, ::-1], x))
    assert np.mean(flipped) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000))


def test_a_probability_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"probability = 1\.5"):
        EDMAugmentation(1.5)
