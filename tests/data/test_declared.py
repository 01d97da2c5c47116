"""A declared data set is the one that would be read, but for its samples."""

import numpy as np
import pytest
from PIL import Image

from sdelab.data.declared import DECLARED
from sdelab.data.registry import LOADERS
from tests.data.test_mnist import NAMES


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A few images in the form of every set that is read from files."""
    for part in ("train", "test"):
        for label in range(10):
            path = tmp_path / "cifar10-jpeg" / part / str(label) / "0.jpg"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (32, 32), (20 * label,) * 3).save(path)
    for name in NAMES:
        shape = (3, 28, 28) if "idx3" in name else (3,)
        header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        (tmp_path / name).write_bytes(header + np.zeros(shape, np.uint8).tobytes())
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("cifar10_jpeg", {"low": 0.0}),
        ("mnist", {}),
        ("mnist32", {"high": 2.0}),
        ("images", {"path": "cifar10-jpeg", "size": 32, "low": 0, "held_out": 3}),
        ("images", {"path": "cifar10-jpeg", "size": 16, "fit": "stretch", "channels": 1}),
        ("digits", {}),
        ("rings", {}),
    ],
)
def test_what_is_declared_is_what_is_read(data, kind, settings):
    read, declared = LOADERS[kind](**settings), DECLARED[kind](classes=LOADERS[kind](**settings).classes, **settings)
    for field in ("name", "event_shape", "classes", "scaling", "levels"):
        assert getattr(declared, field) == getattr(read, field)
    assert declared.train.dtype == read.train.dtype
    assert len(declared.train) == len(declared.train_labels) >= len(read.train)


def test_a_declared_sample_cannot_be_had():
    declared = DECLARED["cifar10"](classes=0)
    assert declared.train.shape == (50_000, 32, 32, 3)
    assert declared.held_out.shape == (10_000, 32, 32, 3)
    for ask in (lambda: declared.train[:4], lambda: declared.fingerprint):
        with pytest.raises(RuntimeError, match="the data set cifar10 was declared and not read"):
            ask()
