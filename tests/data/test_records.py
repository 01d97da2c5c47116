"""Data sets of TFDS and of the Hugging Face hub, by stand-ins for the two packages: neither is needed here."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from sdelab._extras import MissingExtra
from sdelab.data import load_dataset

IMAGES = np.random.RandomState(0).randint(0, 256, (9, 4, 4, 3)).astype(np.uint8)
LABELS = np.arange(9) % 3
ROWS = {"train": slice(0, 6), "test": slice(6, 9)}


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tfds(monkeypatch):
    """`tfds.data_source` with `SkipDecoding` gives bytes, `__len__` and `__getitem__`."""
    skip = object()

    def data_source(name, *, split, data_dir, decoders, download):
        assert (name, data_dir, decoders, download) == ("mine/small", "/data", {"image": skip}, False)
        rows = range(9)[ROWS[split]]
        return [{"image": png(IMAGES[row]), "label": LABELS[row]} for row in rows]

    module = types.ModuleType("tensorflow_datasets")
    module.data_source, module.decode = data_source, types.SimpleNamespace(SkipDecoding=lambda: skip)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)


class Table:
    """A `datasets.Dataset`: rows by number, columns by name; images are decoded unless the column was cast."""

    def __init__(self, rows, images):
        self._rows, self._images = rows, images

    def cast_column(self, name, feature):
        assert (name, feature) == ("image", "Image(decode=False)")
        return Table(self._rows, [self._encoded(row) for row in self._rows])

    def _encoded(self, row):
        return {"bytes": png(IMAGES[row]), "path": None}

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, key):
        if isinstance(key, str):
            return [int(LABELS[row]) for row in self._rows]
        return {"image": self._images[key], "label": int(LABELS[self._rows[key]])}


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    def load_dataset(name, *, split, cache_dir):
        assert (name, cache_dir) == ("mine/small", "/data")
        rows = range(9)[ROWS[split]]
        return Table(rows, [Image.fromarray(IMAGES[row]) for row in rows])

    module = types.ModuleType("datasets")
    module.load_dataset, module.Image = load_dataset, lambda decode: f"Image(decode={decode})"
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.mark.parametrize("name", ["tfds", "hugging_face"])
@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_records_become_the_images_and_labels_that_they_hold(tfds, datasets, name, memory):
    settings = dict(dataset="mine/small", size=4, directory="/data", memory=memory)
    dataset = load_dataset(name, **settings, low=0.0)
    np.testing.assert_array_equal(dataset.train[:], IMAGES[:6])
    np.testing.assert_array_equal(dataset.held_out[:], IMAGES[6:])
    np.testing.assert_array_equal(dataset.train_labels, LABELS[:6])
    np.testing.assert_array_equal(dataset.held_out_labels, LABELS[6:])
    assert (dataset.name, dataset.classes, dataset.scaling.low) == ("mine_small", 3, 0.0)
    assert load_dataset(name, **settings, label="").train_labels is None
    assert load_dataset(name, **settings, label="").fingerprint != dataset.fingerprint
    grey = load_dataset(name, **settings | dict(size=2, fit="stretch", channels=1)).train[0]
    expected = Image.fromarray(IMAGES[0]).convert("L").resize((2, 2), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(grey[..., 0], np.asarray(expected))


def test_an_image_may_be_a_file_of_its_own(datasets, monkeypatch, tmp_path):
    (tmp_path / "0.png").write_bytes(png(IMAGES[5]))
    monkeypatch.setattr(Table, "_encoded", lambda self, row: {"bytes": None, "path": str(tmp_path / "0.png")})
    dataset = load_dataset("hugging_face", dataset="mine/small", size=4, directory="/data")
    np.testing.assert_array_equal(dataset.train[3], IMAGES[5])


def test_what_is_no_encoded_image_is_refused(tfds, datasets, monkeypatch):
    monkeypatch.setattr(Table, "cast_column", lambda self, name, feature: self)
    with pytest.raises(ValueError, match=r"hf/mine/small/train: records have image, label, and no 'photo'"):
        load_dataset("hugging_face", dataset="mine/small", size=4, directory="/data", image="photo")
    with pytest.raises(ValueError, match=r"image of record 00000000 is a Image; accepted: an encoded image, as bytes"):
        load_dataset("hugging_face", dataset="mine/small", size=4, directory="/data")


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("tfds", "tensorflow_datasets", "tfds"), ("hugging_face", "datasets", "hf")]
)
def test_a_missing_package_says_how_to_install_it(monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"needs {package}: pip install 'sdelab\[{extra}\]'"):
        load_dataset(name, dataset="cifar10", size=32)
