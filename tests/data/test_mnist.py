"""IDX files, made by hand byte for byte, and MNIST where it is at hand."""

import gzip
import hashlib

import numpy as np
import pytest

from sdelab.data import load_mnist, load_mnist32, read_idx
from sdelab.data.directory import data_directory

# magic: two zeros, 0x08 = unsigned byte, number of axes; then sizes, big-endian; then the numbers
IMAGES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(100, 112))
LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 2]) + bytes([7, 3])
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def write(folder, contents, suffix=""):
    folder.mkdir(exist_ok=True)
    for name, content in zip(NAMES, contents, strict=True):
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)


def test_bytes_become_the_array(tmp_path):
    (tmp_path / "images").write_bytes(IMAGES)
    images = read_idx(tmp_path / "images")
    assert images.shape == (2, 2, 3)
    assert images[1, 0, 2] == 108
    (tmp_path / "numbers").write_bytes(bytes([0, 0, 0x0C, 1, 0, 0, 0, 2, 0xFF, 0xFF, 0xFF, 0xFE, 0, 0, 1, 2]))
    np.testing.assert_array_equal(read_idx(tmp_path / "numbers"), np.array([-2, 258], np.int32))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("below", ["mnist", "."])
def test_files_are_found_plain_or_compressed(tmp_path, monkeypatch, suffix, below):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    write(tmp_path / below, [IMAGES, LABELS, IMAGES, LABELS], suffix)
    mnist = load_mnist()
    assert mnist.train.shape == (2, 2, 3, 1)
    np.testing.assert_array_equal(mnist.train_labels, [7, 3])
    padded = load_mnist32()
    assert padded.train.shape == (2, 6, 7, 1)
    np.testing.assert_array_equal(padded.train[:, 2:4, 2:5], mnist.train)
    assert padded.train.sum() == mnist.train.sum()


def test_a_missing_file_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"train-images-idx3-ubyte\.gz .* in {tmp_path}/mnist\..*SDELAB_DATA"):
        load_mnist()
    monkeypatch.delenv("SDELAB_DATA")
    assert data_directory().parts[-2:] == (".cache", "sdelab")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (IMAGES[:-1], r"is truncated: shape \(2, 2, 3\) makes 28 bytes, the file has 27"),
        (IMAGES + b"x", r"is too long: shape \(2, 2, 3\) makes 28 bytes, the file has 29"),
        (IMAGES[:9], "is truncated: its header should have 16 bytes"),
        (b"\x89PNG" + IMAGES, "is not an IDX file"),
        (b"", "is not an IDX file"),
        (bytes([0, 0, 7, 1]) + LABELS[4:], "is not an IDX file"),
    ],
)
def test_a_torn_or_foreign_file_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "torn"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(path)


@pytest.mark.parametrize("damage", [lambda z: z[:-9], lambda z: z[:15] + b"\xff\xff" + z[17:], lambda z: b"plain" + z])
def test_a_broken_compression_is_an_error_that_names_the_file(tmp_path, damage):
    path = tmp_path / "broken.gz"
    path.write_bytes(damage(gzip.compress(IMAGES)))
    with pytest.raises(ValueError, match=r"broken\.gz is not a whole gzip file"):
        read_idx(path)


def test_labels_that_do_not_belong_to_the_images_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    write(tmp_path, [IMAGES, bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]), IMAGES, LABELS])
    with pytest.raises(ValueError, match="one for each of the 2 images"):
        load_mnist()
    write(tmp_path, [LABELS, LABELS, IMAGES, LABELS])
    with pytest.raises(ValueError, match=r"accepted: uint8 images"):
        load_mnist()


def _at_hand():
    return any((data_directory() / below / f"{NAMES[0]}.gz").is_file() for below in ("mnist", "."))


PUBLISHED = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of the published files after decompression."""


@pytest.mark.skipif(not _at_hand(), reason="MNIST is not under SDELAB_DATA")
def test_files_are_the_published_ones_byte_for_byte():
    for name, md5 in PUBLISHED.items():
        path = next(path for below in ("mnist", ".") if (path := data_directory() / below / f"{name}.gz").is_file())
        assert hashlib.md5(gzip.decompress(path.read_bytes())).hexdigest() == md5


@pytest.mark.skipif(not _at_hand(), reason="MNIST is not under SDELAB_DATA")
def test_mnist_is_mnist():
    """Counts and means that are known of the published files."""
    mnist = load_mnist()
    assert mnist.train.shape == (60_000, 28, 28, 1)
    assert mnist.held_out.shape == (10_000, 28, 28, 1)
    assert mnist.train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert mnist.train.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert np.bincount(mnist.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.held_out_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.levels == 256
