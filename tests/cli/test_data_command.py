"""`sdelab data inspect`: its numbers are those of the arrays."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

from sdelab.cli.main import run
from sdelab.data import load_dataset
from sdelab.data.summary import summarise


def inspect(capsys, *words):
    code = run(["sdelab", "data", *map(str, words)])
    out, err = capsys.readouterr()
    rows = {line[:20].strip(): line[20:].strip() for line in out.splitlines()}
    return code, rows, err


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Twelve images in three classes, and their pixels in the order of their names."""
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pixels = np.random.RandomState(0).randint(3, 200, (12, 4, 4, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / "flowers" / "abc"[number // 4] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return pixels


def test_the_table_says_what_the_images_are(images, capsys, tmp_path):
    settings = [f"--config.data.{word}" for word in ("path=flowers", "size=4", "held_out=0", "low=0", "memory=0")]
    code, rows, _ = inspect(capsys, "inspect", "--name", "images", *settings)
    assert code == 0
    assert rows["data set"] == "flowers"
    assert (rows["training samples"], rows["held-out samples"], rows["shape"]) == ("12", "0", "4 x 4 x 3")
    assert rows["prepared by"] == "Exact(size=4), RGB"
    assert rows["stored as"] == f"uint8 in [{images.min()}, {images.max()}]"
    mean, std = ([float(number) for number in rows[name].split(", ")] for name in ("mean", "standard deviation"))
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-5)
    ends = [(images.min() + 0.5) / 256, (images.max() + 0.5) / 256]
    np.testing.assert_allclose(
        [float(x) for x in rows["in model units"].split("]")[0][1:].split(", ")], ends, rtol=1e-5
    )
    assert rows["classes"] == "3, of 4 to 4 training samples"
    dataset = load_dataset("images", path="flowers", size=4, held_out=0, low=0.0, memory=0.0)
    assert rows["fingerprint"] == dataset.fingerprint
    assert (tmp_path / rows["written"]).read_bytes().startswith(b"\x89PNG")


def test_a_config_names_the_data_and_points_are_drawn_too(capsys, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "from sdelab.cli.base_config import toy_config\ndef get_config(): return toy_config('rings', 'VP')\n"
    )
    output = tmp_path / "pictures" / "points.png"
    code, rows, _ = inspect(capsys, "inspect", "--config", config, "--output", output)
    assert code == 0
    assert (rows["data set"], rows["training samples"], rows["shape"]) == ("rings", "20000", "2")
    assert rows["written"] == str(output)
    assert output.read_bytes().startswith(b"\x89PNG")
    code, rows, _ = inspect(capsys, "inspect", "--config", config, "--config.data.name=spiral", "--output", output)
    assert rows["data set"] == "spiral"


def test_moments_do_not_depend_on_the_chunks_and_keep_their_digits():
    far = 1e4 + np.random.RandomState(0).normal(size=(1000, 3)).astype(np.float32)
    far = far.astype(np.float32)
    for chunk in (7, 1000, 4096):
        numbers = summarise(far, chunk)
        np.testing.assert_allclose(numbers.mean, far.mean(0, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(numbers.std, far.astype(np.float64).std(0), rtol=1e-9)
        assert (numbers.low, numbers.high) == (far.min(), far.max())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["look"], "unknown action of `sdelab data` 'look'.* Known: inspect"),
        ([], "unknown action of `sdelab data` ''.* Known: inspect"),
        (["inspect"], "--config or --name is needed, and not both"),
        (["inspect", "--name", "digit"], "unknown data set 'digit'. Did you mean 'digits'"),
        (["inspect", "--name", "digits", "--count", "0"], "count = 0 is not accepted"),
        (
            ["inspect", "--name", "images", "--config.data.sise=3"],
            "unknown key of config.data 'sise'. Did you mean 'size'",
        ),
        (["inspect", "--name", "images", "--config.data.size=3"], "config.data lacks path"),
        (
            ["inspect", "--name", "tfds", "--config.data.dataset=x", "--config.data.size=3"],
            r"pip install 'sdelab\[tfds\]'",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_line(capsys, monkeypatch, words, message):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    code, _, err = inspect(capsys, *words)
    assert code == 2
    assert re.search(message, err)
    assert err.startswith("sdelab: ")
    assert len(err.splitlines()) == 1
