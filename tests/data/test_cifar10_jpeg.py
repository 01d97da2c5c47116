"""CIFAR-10 (JPEG): a small set in its layout, and the copy itself where it is at hand."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from sdelab.data import load_cifar10_jpeg
from sdelab.data.cifar10 import CLASSES
from sdelab.data.directory import data_directory

ARCHIVE = data_directory() / "cifar10-jpeg.tar.xz"


def jpeg(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG")
    return buffer.getvalue()


def test_labels_are_those_of_cifar10(tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    random = np.random.RandomState(0)
    contents = {}
    for part, count in (("train", 2), ("test", 1)):
        for name in reversed(CLASSES):
            for i in range(count):
                contents[f"{part}/{name}/{i:04}.jpg"] = jpeg(random.randint(0, 256, (32, 32, 3)).astype(np.uint8))
    for name, content in contents.items():
        path = tmp_path / "cifar10-jpeg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    dataset = load_cifar10_jpeg(low=0.0)
    assert (dataset.name, dataset.classes, dataset.scaling.low) == ("cifar10_jpeg", 10, 0.0)
    np.testing.assert_array_equal(dataset.train_labels, np.repeat(np.arange(10), 2))
    np.testing.assert_array_equal(dataset.held_out_labels, np.arange(10))
    frog = contents["train/frog/0001.jpg"]
    np.testing.assert_array_equal(dataset.train[2 * 6 + 1], np.asarray(Image.open(io.BytesIO(frog))))


def test_a_missing_copy_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"cifar10_jpeg needs cifar10-jpeg or .* in {tmp_path}/cifar10_jpeg"):
        load_cifar10_jpeg()


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.is_file(), reason="CIFAR-10 (JPEG) is not under SDELAB_DATA")
def test_the_copy_is_all_of_cifar10():
    """Its checksum; and it looks like CIFAR-10: the published test images have the mean 0.4942, 0.4851, 0.4504."""
    digest = hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()
    assert digest == "0bc8b71aace2a2174b9940623c80ba14fc88541245222bd0ccbbf8d99bc36c82"
    dataset = load_cifar10_jpeg()
    assert dataset.train.shape == (50_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), np.full(10, 5000))
    np.testing.assert_array_equal(np.bincount(dataset.held_out_labels), np.full(10, 1000))
    np.testing.assert_allclose(dataset.held_out.mean((0, 1, 2)) / 255, [0.4942, 0.4851, 0.4504], atol=5e-4)
