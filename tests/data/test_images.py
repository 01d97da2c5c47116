"""Images in files: PIL is the oracle of decoding, arrays made by hand that of labels, splits and crops."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from sdelab.data import Batches, CenterCrop, CenterCropADM, Exact, ImageFiles, Stretch, load_dataset
from sdelab.data.files import FolderFiles, open_files


def noise(height, width, channels=3, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def encoded(array, kind="png", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, {"png": "PNG", "jpg": "JPEG"}[kind], **options)
    return buffer.getvalue()


def write(root, contents):
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def pack(root, form, contents):
    """The contents as a folder or an archive, under `root/set`."""
    if form == "folder":
        return write(root / "set", contents)
    if form == "zip":
        with zipfile.ZipFile(root / "set.zip", "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return root / "set.zip"
    with tarfile.open(root / "set.tar.xz", "w:xz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return root / "set.tar.xz"


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_pixels_are_those_of_pil_in_the_order_of_names_in_every_packing(tmp_path, form, memory):
    arrays = {
        f"{label}/{i}.{kind}": noise(6, 6, seed=3 * i) for i in range(4) for label, kind in (("b", "png"), ("a", "jpg"))
    }
    contents = {name: encoded(array, name[-3:]) for name, array in arrays.items()}
    path = pack(tmp_path, form, {**contents, "a/.hidden.png": b"x", "__MACOSX/b/0.png": b"x", "readme.txt": b"x"})
    dataset = load_dataset("images", path=str(path), size=6, held_out=0, memory=memory)
    assert dataset.train.shape == (8, 6, 6, 3)
    for image, label, name in zip(dataset.train[:], dataset.train_labels, sorted(contents), strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(contents[name])).convert("RGB")))
        assert label == "ab".index(name[0])
        if name.endswith("png"):
            np.testing.assert_array_equal(image, arrays[name])  # lossless: what was put in
    assert isinstance(dataset.train, ImageFiles if memory == 0.0 else np.ndarray)
    assert (dataset.name, dataset.classes, len(dataset.held_out)) == ("set", 2, 0)


def test_a_set_on_the_disk_gives_the_batches_of_one_in_memory(tmp_path):
    path = write(tmp_path, {f"{i % 3}/{i:02}.png": encoded(noise(5, 5, seed=i)) for i in range(30)})
    kept, read = (load_dataset("images", path=str(path), size=5, held_out=6, memory=m) for m in (1.0, 0.0))
    for step in (0, 2, 3, 50):
        for name, array in Batches(kept, 8, seed=1).batch(step).items():
            np.testing.assert_array_equal(Batches(read, 8, seed=1).batch(step)[name], array)
    np.testing.assert_array_equal(read.encode(read.held_out), kept.encode(kept.held_out))
    samples = read.train
    for index in (3, -1, slice(2, 20, 5), np.array([4, 1, 1]), np.arange(24) % 2 == 0):
        np.testing.assert_array_equal(samples[index], kept.train[index])


def test_rows_held_out_are_every_class_s_share_and_stay_the_same(tmp_path):
    path = write(tmp_path, {f"{i % 3}/{i:02}.png": encoded(np.full((2, 2, 3), i, np.uint8)) for i in range(30)})
    dataset = load_dataset("images", path=str(path), size=2, held_out=6)
    assert np.bincount(dataset.held_out_labels).tolist() == [2, 2, 2]
    held, train = (set(part[:, 0, 0, 0].tolist()) for part in (dataset.held_out, dataset.train))
    assert held | train == set(range(30))
    assert not held & train
    again = load_dataset("images", path=str(path), size=2, held_out=6)
    np.testing.assert_array_equal(again.held_out, dataset.held_out)


def test_train_and_test_folders_are_the_two_parts_with_one_numbering(tmp_path):
    contents = {f"train/{c}/{i}.png": encoded(np.full((2, 2, 3), 10 * i, np.uint8)) for i, c in enumerate("abc")}
    path = write(tmp_path, contents | {"test/c/0.png": encoded(np.full((2, 2, 3), 99, np.uint8))})
    dataset = load_dataset("images", path=str(path), size=2)
    np.testing.assert_array_equal(dataset.train[:, 0, 0, 0], [0, 10, 20])
    assert dataset.train_labels.tolist() == [0, 1, 2]
    assert dataset.held_out_labels.tolist() == [2]
    assert dataset.held_out[0, 0, 0, 0] == 99
    write(tmp_path, {"test/d/0.png": contents["train/a/0.png"]})
    with pytest.raises(ValueError, match=r"test/d is no class of the training images: a, b, c"):
        load_dataset("images", path=str(path), size=2)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_labels_are_those_of_dataset_json(tmp_path, form):
    """EDM's layout: folders of a thousand images are no classes."""
    labels = {f"00000/img0000000{i}.png": (7 * i) % 5 for i in range(5)}
    contents = {name: encoded(noise(4, 4, seed=i)) for i, name in enumerate(labels)}
    manifest = {"dataset.json": json.dumps({"labels": [list(pair) for pair in labels.items()]}).encode()}
    dataset = load_dataset("images", path=str(pack(tmp_path, form, contents | manifest)), size=4, held_out=0)
    assert dataset.train_labels.tolist() == [labels[name] for name in sorted(labels)]
    assert dataset.classes == 5
    np.testing.assert_array_equal(dataset.train[3], noise(4, 4, seed=3))


def test_a_manifest_may_say_that_there_are_no_labels(tmp_path):
    write(tmp_path, {"00000/0.png": encoded(noise(4, 4)), "dataset.json": b'{"labels": null}'})
    dataset = load_dataset("images", path=str(tmp_path), size=4, held_out=0)
    assert (dataset.train_labels, dataset.classes) == (None, 0)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (
            {"labels": [["0.png", 1]]},
            r"dataset\.json has the label None for 1\.png; accepted: an integer >= 0 for every",
        ),
        ({"labels": [["0.png", 1], ["1.png", [0.5]]]}, r"has the label \[0\.5\] for 1\.png"),
        ({"labels": [["0.png", 1], ["1.png", -1]]}, r"has the label -1"),
        ({"labels": [["0.png"]]}, r"dataset\.json is not accepted"),
        ([], r"dataset\.json is not accepted"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path, manifest, words):
    write(
        tmp_path, {f"{i}.png": encoded(noise(2, 2)) for i in range(2)} | {"dataset.json": json.dumps(manifest).encode()}
    )
    with pytest.raises(ValueError, match=words):
        load_dataset("images", path=str(tmp_path), size=2, held_out=0)


def test_grey_and_colour_are_what_pil_makes_of_any_eight_bit_image(tmp_path):
    grey, colour = noise(3, 3, 1), noise(3, 3)
    palette = Image.fromarray(colour).quantize(4)
    palette.save(tmp_path / "2.png")
    Image.fromarray(noise(3, 3, 4)).save(tmp_path / "3.png")  # with transparency
    write(tmp_path, {"0.png": encoded(grey), "1.png": encoded(colour)})
    names = tuple(f"{i}.png" for i in range(4))
    for channels, mode in ((1, "L"), (3, "RGB")):
        images = ImageFiles(FolderFiles(tmp_path), names, Exact(3), channels)[:]
        for image, name in zip(images, names, strict=True):
            np.testing.assert_array_equal(image.squeeze(), np.asarray(Image.open(tmp_path / name).convert(mode)))


def test_a_square_is_cut_about_the_centre():
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, :3], wide[:, 3:7], wide[:, 7:] = 10, 20, 30
    for fit in (CenterCrop(4), CenterCropADM(4)):
        np.testing.assert_array_equal(np.asarray(fit(Image.fromarray(wide))), np.full((4, 4, 3), 20))
    tall = noise(9, 4)
    np.testing.assert_array_equal(np.asarray(CenterCrop(4)(Image.fromarray(tall))), tall[2:6])
    assert Stretch(4)(Image.fromarray(wide)).size == (4, 4)
    assert np.asarray(Stretch(4)(Image.fromarray(wide)))[0, :, 0].tolist() != [20] * 4


def test_resizing_keeps_the_image_where_it_is():
    """Linear in both coordinates, an image stays linear with the pixel's centre as coordinate; box means are exact."""
    ramp = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    centre = 4 * np.arange(16) + 1.5
    expected = np.add.outer(centre, 2 * centre)
    for fit in (Stretch(16), CenterCrop(16), CenterCropADM(16)):
        small = np.asarray(fit(Image.fromarray(ramp))).astype(float)
        np.testing.assert_allclose(small[3:-3, 3:-3], expected[3:-3, 3:-3], atol=1.1)
    # Pillow rounds its means of bytes by up to 1
    quarter = noise(8, 12, 1).astype(int)
    halved = (quarter.reshape(4, 2, 6, 2).sum((1, 3)) / 4.0)[:, 1:5]
    np.testing.assert_allclose(
        np.asarray(CenterCropADM(4)(Image.fromarray(quarter.astype(np.uint8)))), halved, atol=1.01
    )


def test_the_rule_and_every_byte_are_in_the_fingerprint(tmp_path):
    image = encoded(noise(8, 8))
    path = write(tmp_path / "set", {"0.png": image, "1.png": encoded(noise(8, 8, seed=1))})

    def fingerprint(**changes):
        return load_dataset(
            "images", **{"path": str(path), "size": 4, "held_out": 0, "memory": 0.0, **changes}
        ).fingerprint

    said = load_dataset("images", path=str(path), size=4, held_out=0, fit="center_crop_adm", channels=1).preparation
    assert said == "CenterCropADM(size=4), L"
    by_rule = {fingerprint(fit=fit) for fit in ("center_crop", "center_crop_adm", "stretch")}
    assert len(by_rule) == 3
    assert fingerprint(fit="stretch") in by_rule
    assert fingerprint(fit="stretch", channels=1) not in by_rule
    changed = bytearray(image)
    changed[-20] ^= 1
    write(path, {"0.png": bytes(changed)})
    assert fingerprint(fit="stretch") not in by_rule
    zipped = pack(tmp_path, "zip", {"0.png": image})
    before = open_files(zipped).checksum("0.png")
    pack(tmp_path, "zip", {"0.png": bytes(changed)})
    assert open_files(zipped).checksum("0.png") != before


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))

    def load(**settings):
        return load_dataset("images", **{"path": "set", "size": 4, "held_out": 0, **settings})

    with pytest.raises(FileNotFoundError, match=rf"there is neither {tmp_path}/set nor .*/set\. Put the data there"):
        load()
    write(tmp_path / "set", {"a/0.png": encoded(noise(4, 4)), "a/readme": b""})
    assert load().train.shape == (1, 4, 4, 3)
    with pytest.raises(
        ValueError, match=r"set: a/0\.png cannot be read: the image is 4 x 4; accepted by fit = 'exact': 5 x 5"
    ):
        load(size=5)
    with pytest.raises(ValueError, match=r"unknown fit 'crop'.* Known: center_crop, center_crop_adm, exact, stretch"):
        load(fit="crop")
    with pytest.raises(ValueError, match="held_out = 1 is not accepted for 1 samples; accepted: 0 to 0"):
        load(held_out=1)
    with pytest.raises(ValueError, match="channels = 2"):
        load(channels=2)
    for broken in (encoded(noise(4, 4))[:60], b"no image", b""):
        write(tmp_path / "set", {"a/1.png": broken})
        with pytest.raises(ValueError, match=r"set: a/1\.png cannot be read: "):
            load()
    Image.fromarray(np.full((4, 4), 60_000, np.uint16)).save(tmp_path / "set" / "a" / "1.png")
    with pytest.raises(ValueError, match=r"a/1\.png cannot be read: it has pixels of mode I;16; accepted: 8 bits"):
        load()
    write(tmp_path / "set", {"a/1.png": encoded(noise(4, 4)), "loose.png": encoded(noise(4, 4))})
    with pytest.raises(ValueError, match=r"set: loose\.png is in no class folder, and others are"):
        load()
    write(tmp_path / "texts", {"a.txt": b""})
    with pytest.raises(ValueError, match=r"texts holds no image; accepted: \.png, \.jpg, \.jpeg"):
        load(path="texts")


def test_archives_that_are_none_are_named(tmp_path):
    write(tmp_path, {"x.zip": b"no zip", "x.tar": b"no tar", "x.rar": b""})
    for name in ("x.zip", "x.tar"):
        with pytest.raises(ValueError, match=rf"{name} is not a whole {name[2:]} archive"):
            open_files(tmp_path / name)
    with pytest.raises(ValueError, match=r"x\.rar is not accepted; accepted: a folder, or \.zip, \.tar"):
        open_files(tmp_path / "x.rar")
    with pytest.raises(FileNotFoundError, match=r"y\.zip: there is no such"):
        open_files(tmp_path / "y.zip")
    path = pack(tmp_path, "zip", {"0.png": encoded(noise(16, 16))})
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"set\.zip: 0\.png is damaged"):
        open_files(path).read("0.png")
