"""Data sets: their values, splits and scaling."""

import numpy as np
import pytest

from sdelab.data import (
    EIGHT_GAUSSIANS_MEANS,
    EIGHT_GAUSSIANS_STD,
    Dataset,
    GreyLevels,
    Unscaled,
    load_dataset,
    load_digits,
)
from sdelab.data.registry import LOADERS

TOYS = ["checkerboard", "eight_gaussians", "rings", "spiral", "two_moons"]


def test_digits_are_all_of_scikit_learn_s_split_in_two():
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    digits = load_digits()
    assert digits.train.shape == (1500, 8, 8, 1)
    assert digits.held_out.shape == (297, 8, 8, 1)
    assert digits.levels == 17
    np.testing.assert_array_equal(np.unique(digits.train), np.arange(17))
    together = np.concatenate([digits.train, digits.held_out]).reshape(1797, 64)
    tags = np.concatenate([digits.train_labels, digits.held_out_labels])
    ours = sorted(map(tuple, np.column_stack([together, tags]).tolist()))
    assert ours == sorted(map(tuple, np.column_stack([images, labels]).astype(int).tolist()))


def test_digits_hold_out_every_class_s_share():
    digits = load_digits()
    held_out, train = (np.bincount(a, minlength=10) for a in (digits.held_out_labels, digits.train_labels))
    np.testing.assert_array_less(np.abs(held_out - (held_out + train) * 297 / 1797), 1.0)


def test_grey_levels_come_back_exactly():
    for count in (2, 17, 256, 1024):
        scaling, values = GreyLevels(count), np.arange(count)
        x = scaling.encode(values)
        assert x.dtype == np.float32
        np.testing.assert_array_equal(scaling.decode(x), values)
        assert -1.0 < x[0] < x[-1] < 1.0
        np.testing.assert_allclose(x, -x[::-1], atol=1e-7)


def test_all_of_a_bin_decodes_to_its_level():
    """Dequantised values too, and what lies outside goes to the nearest end."""
    scaling, random = GreyLevels(17), np.random.RandomState(0)
    values = random.randint(0, 17, (200, 8, 8)).astype(np.uint8)
    uniform = random.uniform(0.001, 0.999, values.shape)
    np.testing.assert_array_equal(scaling.decode(scaling.dequantise(values, uniform)), values)
    np.testing.assert_array_equal(scaling.dequantise(values, np.full(values.shape, 0.5)), scaling.encode(values))
    np.testing.assert_array_equal(scaling.decode(np.array([-3.0, 3.0, -1.0, 1.0])), [0, 16, 0, 16])


def test_the_offset_of_bits_makes_a_uniform_density_cost_log2_levels():
    scaling = GreyLevels(17)
    log2_density = -np.log2(2.0)  # uniform on [-1, 1]
    assert scaling.offset_bits - log2_density == pytest.approx(np.log2(17))
    assert scaling.offset_bits == pytest.approx(np.log2(17 / 2))


@pytest.mark.parametrize("name", TOYS)
def test_points_are_centred_of_about_unit_scale_and_their_own_units(name):
    toy = load_dataset(name)
    assert toy.levels is None
    assert toy.train.shape[1:] == (2,)
    assert np.all(np.abs(toy.train.mean(0)) < 0.05)
    assert np.all((toy.train.std(0) > 0.5) & (toy.train.std(0) < 1.5))
    np.testing.assert_array_equal(toy.decode(toy.encode(toy.train)), toy.train)


def test_eight_gaussians_are_the_mixture_that_is_stated():
    toy = load_dataset("eight_gaussians")
    residual = (toy.train - EIGHT_GAUSSIANS_MEANS[toy.train_labels]) / EIGHT_GAUSSIANS_STD
    n = len(residual)
    np.testing.assert_allclose(residual.mean(0), 0.0, atol=4 / np.sqrt(n))
    np.testing.assert_allclose(residual.T @ residual / n, np.eye(2), atol=4 * np.sqrt(2 / n))
    counts = np.bincount(toy.train_labels, minlength=8)
    np.testing.assert_allclose(counts / n, 1 / 8, atol=4 * np.sqrt(1 / 8 * 7 / 8 / n))


def test_checkerboard_is_uniform_on_the_dark_squares():
    points = load_dataset("checkerboard").train / 0.9 + 2.0
    cell = np.floor(points).astype(int)
    assert cell.min() == 0
    assert cell.max() == 3
    assert np.all(cell.sum(1) % 2 == 0)
    counts = np.bincount(cell[:, 0] * 4 + cell[:, 1], minlength=16)
    np.testing.assert_allclose(counts[counts > 0] / len(points), 1 / 8, atol=4 * np.sqrt(1 / 8 * 7 / 8 / len(points)))


@pytest.mark.parametrize("name", ["rings", "two_moons", "spiral"])
def test_points_lie_on_the_curve_of_their_label(name):
    toy = load_dataset(name)
    x, label = toy.train.astype(np.float64), toy.train_labels
    if name == "rings":
        error = np.linalg.norm(x, axis=1) - 0.6 * (label + 1)
        np.testing.assert_allclose(error.std(), 0.06, rtol=0.05)
    elif name == "two_moons":
        moon = np.where(label[:, None] == 0, x, -x) / 1.2 + [0.5, 0.25]
        error = 1.2 * (np.linalg.norm(moon, axis=1) - 1.0)
        np.testing.assert_allclose(error.std(), 0.1, rtol=0.05)
    else:
        arm = np.where(label[:, None] == 0, x, -x)
        angle = np.linalg.norm(arm, axis=1) * 1.4 * np.pi
        turned = np.exp(-1j * angle) * (arm[:, 0] + 1j * arm[:, 1])
        outer = angle > 1.5 * np.pi  # where the noise is small beside the radius
        # noise along the radius turns the arm that belongs to it, noise across turns the point
        spread = 0.06 * np.hypot(1.4 * np.pi, 1.4 * np.pi / angle)
        np.testing.assert_allclose((np.angle(turned) / spread)[outer].std(), 1.0, rtol=0.05)
    assert len(np.unique(label)) == toy.classes


def test_loading_twice_gives_the_same_set_and_its_fingerprint_sees_a_single_value():
    for name in ("digits", "rings"):
        first, second = load_dataset(name), load_dataset(name)
        assert first.fingerprint == second.fingerprint
    digits = load_digits()
    changed = digits.train.copy()
    changed[7, 3, 3, 0] ^= 1
    settings = dict(held_out=digits.held_out, scaling=digits.scaling, classes=10)
    settings |= dict(train_labels=digits.train_labels, held_out_labels=digits.held_out_labels)
    assert Dataset("digits", train=digits.train.copy(), **settings).fingerprint == digits.fingerprint
    assert Dataset("digits", train=changed, **settings).fingerprint != digits.fingerprint
    settings["scaling"] = GreyLevels(17, low=0.0)
    assert Dataset("digits", train=digits.train.copy(), **settings).fingerprint != digits.fingerprint


def test_fingerprints_stay_what_they_were():
    """A changed split or stream of random numbers would make old runs irreproducible without a word."""
    assert load_digits().fingerprint.startswith("aa22a5af32e117f4")


def test_a_data_set_cannot_be_changed():
    digits = load_digits()
    with pytest.raises(ValueError, match="read-only"):
        digits.train[0] = 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"unknown data set 'digit'\. Did you mean 'digits'\? Known: arrays, "):
        load_dataset("digit")
    with pytest.raises(ValueError, match="count = 1"):
        GreyLevels(1)
    with pytest.raises(ValueError, match=r"low = 1\.0 must be less than high = 1\.0"):
        GreyLevels(17, low=1.0)
    for bad in (np.array([17]), np.array([-1]), np.array([0.5])):
        with pytest.raises(ValueError, match=r"accepted: integers in \[0, 16\]"):
            GreyLevels(17).encode(bad)
    points = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="both labels and classes, or neither"):
        Dataset("x", points, points, Unscaled(), classes=2)
    with pytest.raises(ValueError, match=r"train_labels of shape \(2,\)"):
        Dataset("x", points, points, Unscaled(), np.zeros(2, np.int32), np.zeros(3, np.int32), 2)
    with pytest.raises(ValueError, match=r"held_out has events of shape \(1,\); accepted: that of train, \(2,\)"):
        Dataset("x", points, points[:, :1], Unscaled())


def test_every_loader_is_listed_under_the_name_of_its_data_set():
    assert {*TOYS, "digits"} <= {*LOADERS}  # the others need files
    assert [name for name in (*TOYS, "digits") if load_dataset(name).name != name] == []
