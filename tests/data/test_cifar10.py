"""CIFAR-10: both published formats, made by hand byte for byte."""

import io
import pickle
import tarfile

import numpy as np
import pytest

from sdelab.data import cifar10, load_cifar10
from sdelab.data.cifar10_batches import read_binary_batch, read_python_batch

COUNT = 3
STEMS = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def content(seed):
    random = np.random.RandomState(seed)
    return random.randint(0, 256, (COUNT, 3072)).astype(np.uint8), random.randint(0, 10, COUNT)


def binary(seed):
    data, labels = content(seed)
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(data, labels, strict=True))


def python_2(seed):
    """The opcodes of Python 2's `cPickle.dump(batch, file, 2)`: its strings are bytes, its NumPy has `numpy.core`."""
    data, labels = content(seed)

    def short(text):
        return b"U" + bytes([len(text)]) + text

    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + short(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"K" + bytes([COUNT]) + b"M\x00\x0c\x86"
    pixels = b"T" + len(data.tobytes()).to_bytes(4, "little") + data.tobytes()
    array += b"(K\x01" + shape + dtype + b"\x89" + pixels + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = short(b"batch_label") + short(b"part") + short(b"labels") + numbers + short(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def python_3(seed):
    data, labels = content(seed)
    return pickle.dumps({b"data": data, b"labels": labels.tolist()}, protocol=2)


def pack(path, folder, make, ending=""):
    with tarfile.open(path, "w:gz") as archive:
        for seed, stem in enumerate(STEMS):
            entry = tarfile.TarInfo(f"{folder}/{stem}{ending}")
            entry.size = len(make(seed))
            archive.addfile(entry, io.BytesIO(make(seed)))
        archive.addfile(tarfile.TarInfo(f"{folder}/readme.html"), io.BytesIO())


def unpack(path, make, ending=""):
    path.mkdir()
    for seed, stem in enumerate(STEMS):
        (path / (stem + ending)).write_bytes(make(seed))


PLACES = {
    "binary archive": lambda root: pack(root / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", binary, ".bin"),
    "python archive": lambda root: pack(root / "cifar-10-python.tar.gz", "cifar-10-batches-py", python_2),
    "python folder": lambda root: unpack(root / "cifar-10-batches-py", python_2),
    "binary folder": lambda root: unpack(root / "cifar-10-batches-bin", binary, ".bin"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("below", ["cifar10", "."])
def test_every_form_gives_the_published_pixels_in_the_published_order(tmp_path, monkeypatch, place, below):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10, "MD5", {})  # these are not the published images
    (tmp_path / below).mkdir(exist_ok=True)
    PLACES[place](tmp_path / below)
    dataset = load_cifar10(low=0.0)
    assert dataset.train.shape == (5 * COUNT, 32, 32, 3)
    assert dataset.held_out.shape == (COUNT, 32, 32, 3)
    assert (dataset.scaling.low, dataset.levels, dataset.classes) == (0.0, 256, 10)
    for number, (images, labels) in enumerate(
        [*zip(np.split(dataset.train, 5), np.split(dataset.train_labels, 5), strict=True)]
        + [(dataset.held_out, dataset.held_out_labels)]
    ):
        data, tags = content(number)
        np.testing.assert_array_equal(labels, tags)
        for row, column, channel in (
            (0, 0, 0),
            (31, 2, 1),
            (5, 31, 2),
        ):  # red plane, green plane, blue plane; row by row
            np.testing.assert_array_equal(images[:, row, column, channel], data[:, 1024 * channel + 32 * row + column])


def test_python_3_may_have_written_the_pickle():
    for by_2, by_3 in zip(read_python_batch(python_2(1), "x"), read_python_batch(python_3(1), "x"), strict=True):
        np.testing.assert_array_equal(by_2, by_3)


def test_a_pickle_runs_no_code():
    class Evil:
        def __reduce__(self):
            return print, ("never said",)

    with pytest.raises(
        ValueError, match=r"test_batch is no batch of CIFAR-10: it asks for \w+\.print, and only arrays"
    ):
        read_python_batch(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2), "test_batch")


@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_the_published_file_is_refused_by_its_checksum(tmp_path, monkeypatch, place):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    PLACES[place](tmp_path)
    if place == "binary folder":  # no checksums of these were published
        assert len(load_cifar10().train) == 15
        return
    with pytest.raises(
        ValueError, match=r"has the MD5 checksum \w{32}; the published one is \w{32}\. Copy or download"
    ):
        load_cifar10()


def test_a_missing_archive_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=rf"cifar-10-python\.tar\.gz or .* in {tmp_path}/cifar10\. Put a published"
    ):
        load_cifar10()


def test_torn_batches_say_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"x is torn: 9218 bytes are no whole number of records of 3073"):
        read_binary_batch(binary(0)[:-1], "x")
    with pytest.raises(ValueError, match=r"x is no batch of CIFAR-10"):
        read_python_batch(python_2(0)[:-40], "x")
    with pytest.raises(ValueError, match=r"labels in \[12, 12\]; accepted: 0 to 9"):
        read_binary_batch(bytes([12]) + bytes(3072), "x")
    with pytest.raises(ValueError, match=r"holds data uint8 \(2, 5\) with labels \(2,\)"):
        read_python_batch(pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 1]}, 2), "x")
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    unpack(tmp_path / "cifar-10-batches-bin", binary, ".bin")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-bin lacks data_batch_3\.bin"):
        load_cifar10()
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"torn")
    monkeypatch.setattr(cifar10, "MD5", {})
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz is not a whole tar archive"):
        load_cifar10()
