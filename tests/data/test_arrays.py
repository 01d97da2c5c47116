"""NumPy files as data sets: what was saved comes back."""

import numpy as np
import pytest

from sdelab.data import Batches, GreyLevels, Unscaled, load_dataset
from sdelab.data.selected_samples import SelectedSamples

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (20, 4, 5, 3)).astype(np.uint8)
LABELS = np.arange(20) % 4


def test_parts_of_an_npz_are_the_parts_of_the_set(tmp_path):
    labels = dict(train_labels=LABELS[:15], held_out_labels=LABELS[15:].astype(np.uint8))
    np.savez(tmp_path / "mine.npz", train=IMAGES[:15], held_out=IMAGES[15:], **labels)
    dataset = load_dataset("arrays", path=str(tmp_path / "mine.npz"), low=0)
    np.testing.assert_array_equal(dataset.train, IMAGES[:15])
    np.testing.assert_array_equal(dataset.held_out, IMAGES[15:])
    np.testing.assert_array_equal(dataset.train_labels, LABELS[:15])
    np.testing.assert_array_equal(dataset.held_out_labels, LABELS[15:])
    assert (dataset.name, dataset.classes, dataset.scaling) == ("mine", 4, GreyLevels(256, 0.0, 1.0))


def test_an_npy_is_mapped_and_split(tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    np.save(tmp_path / "big.npy", IMAGES[..., 0])
    dataset = load_dataset("arrays", path="big.npy", held_out=6)
    assert isinstance(dataset.train, SelectedSamples)
    assert isinstance(dataset.train.array, np.memmap)
    assert dataset.event_shape == (4, 5, 1)
    rows = [*dataset.train.rows, *dataset.held_out.rows]
    assert sorted(rows) == list(range(20))
    np.testing.assert_array_equal(dataset.train[:], IMAGES[dataset.train.rows][..., :1])
    np.testing.assert_array_equal(dataset.held_out[2:4], IMAGES[dataset.held_out.rows[2:4]][..., :1])
    stream = np.concatenate([dataset.decode(Batches(dataset, 7).batch(step)["x"]) for step in range(2)])
    assert sorted(map(bytes, stream)) == sorted(map(bytes, dataset.train[:]))  # two sevenths are one epoch
    before = dataset.fingerprint
    changed = IMAGES[..., 0].copy()
    changed[11, 2, 2] ^= 1
    np.save(tmp_path / "big.npy", changed)
    assert load_dataset("arrays", path="big.npy", held_out=6).fingerprint != before


def test_nothing_need_be_held_out(tmp_path):
    np.savez(tmp_path / "all.npz", train=IMAGES, train_labels=np.arange(len(IMAGES)) % 3)
    dataset = load_dataset("arrays", path=str(tmp_path / "all.npz"), held_out=0)
    np.testing.assert_array_equal(np.asarray(dataset.train).reshape(IMAGES.shape), IMAGES)
    np.testing.assert_array_equal(dataset.train_labels, np.arange(len(IMAGES)) % 3)
    assert (len(dataset.held_out), dataset.classes) == (0, 3)


def test_points_of_a_continuum_are_in_model_units(tmp_path):
    points = RANDOM.normal(size=(30, 3))
    np.savez(tmp_path / "points.npz", train=points, train_labels=np.arange(30) % 2)
    dataset = load_dataset("arrays", path=str(tmp_path / "points.npz"), held_out=10)
    assert dataset.scaling == Unscaled()
    assert np.bincount(dataset.held_out_labels).tolist() == [5, 5]
    together = np.concatenate([dataset.train, dataset.held_out])
    np.testing.assert_array_equal(together[np.lexsort(together.T)], points[np.lexsort(points.T)])


def test_what_does_not_fit_is_refused(tmp_path):
    def load(name, **settings):
        return load_dataset("arrays", path=str(tmp_path / name), held_out=2, **settings)

    np.savez(tmp_path / "a.npz", images=IMAGES)
    with pytest.raises(ValueError, match=r"a\.npz holds the arrays images; accepted: train, and any of held_out, "):
        load("a.npz")
    np.save(tmp_path / "b.npy", IMAGES)
    with pytest.raises(
        ValueError, match=r"b\.npy: train has values in \[0, 255\]; accepted with levels = 17: \[0, 16\]"
    ):
        load("b.npy", levels=17)
    np.save(tmp_path / "c.npy", IMAGES[:, 0, 0])
    with pytest.raises(
        ValueError, match=r"c\.npy: train has dtype uint8 and shape \(20, 3\); accepted: integer images"
    ):
        load("c.npy")
    np.savez(tmp_path / "d.npz", train=IMAGES, train_labels=LABELS / 2)
    with pytest.raises(ValueError, match=r"train_labels has dtype float64; accepted: integers"):
        load("d.npz")
    (tmp_path / "e.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"e\.npy is not a whole NumPy file"):
        load("e.npy")
    np.save(tmp_path / "f.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"f\.npy is not a whole NumPy file"):
        load("f.npy")
    (tmp_path / "g.txt").write_text("")
    with pytest.raises(ValueError, match=r"g\.txt is not accepted; accepted: an \.npy or \.npz"):
        load("g.txt")
