import math
from pathlib import Path

import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.files import AbstractFiles, open_files
from sdelab.data.images.fit import AbstractFit
from sdelab.data.images.image_files import MODES, ImageFiles
from sdelab.data.images.labels import labels_of
from sdelab.data.samples import Samples
from sdelab.data.scaling import AbstractScaling, GreyLevels
from sdelab.data.split import held_out_mask

ENDINGS = (".png", ".jpg", ".jpeg")
HELD_OUT_FOLDERS = ("test", "val", "valid", "validation", "held_out")


def load_images(
    name: str,
    path: Path,
    fit: AbstractFit,
    *,
    channels: int = 3,
    held_out: int = 1000,
    scaling: AbstractScaling = GreyLevels(256),
    memory: float | int = 2.0,
) -> Dataset:
    """PNG and JPEG files in a folder, a zip or a tar archive, with class folders or EDM's `dataset.json`.

    With folders `train` and `test` (or `val`, `valid`, `validation`, `held_out`) at the top, those are the two parts;
    else `held_out` images are held out, the same ones for ever, every class its share. Images come in the order of
    their names. `channels`: 1 or 3. A part that decodes to at most `memory` GiB is decoded at once; a larger one image
    by image when it is asked for.
    Errors: no image; an image that cannot be decoded or fitted; labels for some images only.
    """
    files = open_files(path)
    images = tuple(file for file in files.names if file.lower().endswith(ENDINGS))
    if not images:
        raise ValueError(f"{path} holds no image; accepted: {', '.join(ENDINGS)} files, in folders or not.")
    train_names, held_names, labels, held_labels, classes = _parts(files, images, held_out)
    train, held = (kept(ImageFiles(files, names, fit, channels), memory) for names in (train_names, held_names))
    return Dataset(
        name=name,
        train=train,
        held_out=held,
        scaling=scaling,
        train_labels=labels,
        held_out_labels=held_labels,
        classes=classes,
        preparation=preparation(fit, channels),
    )


def _parts(files: AbstractFiles, images: tuple[str, ...], held_out: int) -> tuple:
    """Names of both parts, their labels, and the number of classes."""
    tops = {name.split("/")[0] for name in images if "/" in name}
    folder = next((name for name in HELD_OUT_FOLDERS if name in tops), None)
    if folder is not None and tops == {"train", folder} and all("/" in name for name in images):
        train, held = (tuple(n for n in images if n.startswith(f"{top}/")) for top in ("train", folder))
        labels, classes = labels_of(files, train, "train/")
        held_labels, held_classes = labels_of(files, held, f"{folder}/", classes)
        if (labels is None) != (held_labels is None):
            raise ValueError(f"{files.path}: only one of train and {folder} has labels; accepted: both or neither.")
        return train, held, labels, held_labels, max(len(classes), len(held_classes))
    labels, classes = labels_of(files, images)
    mask = held_out_mask(labels, len(images), held_out)
    train, held = (tuple(np.array(images, object)[rows]) for rows in (~mask, mask))
    if labels is None:
        return train, held, None, None, 0
    return train, held, labels[~mask], labels[mask], len(classes)


def preparation(fit: AbstractFit, channels: int) -> str:
    """The rule and the channels, for the record of a run."""
    return f"{fit}, {MODES[channels]}"


def kept(images: ImageFiles, memory: float | int) -> Samples:
    """The images decoded, if that takes at most `memory` GiB; else as they are, decoded when they are asked for."""
    return images.decoded() if math.prod(images.shape) <= memory * 2**30 else images
