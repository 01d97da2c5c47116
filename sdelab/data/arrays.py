from pathlib import Path

import numpy as np

from sdelab.data.dataset import Dataset
from sdelab.data.samples import Samples
from sdelab.data.scaling import AbstractScaling, GreyLevels, Unscaled
from sdelab.data.selected_samples import SelectedSamples
from sdelab.data.split import held_out_mask

KEYS = ("train", "held_out", "train_labels", "held_out_labels")


def load_arrays(
    name: str,
    path: Path,
    *,
    held_out: int = 1000,
    levels: int = 256,
    low: float | int = -1.0,
    high: float | int = 1.0,
) -> Dataset:
    """Samples `(n, *event)` from a NumPy file.

    `.npz` holds the array `train`, and may hold `held_out`, `train_labels` and `held_out_labels`; it is read into memory.
    `.npy` holds the samples alone and stays on the disk, mapped: it may be larger than memory. Without an array `held_out`,
    that many samples are held out, the same ones for ever, every class its share. Integers are `levels` grey levels in
    [low, high], images `(n, height, width)` or `(n, height, width, channels)`; floating-point samples are in model units.
    Errors: another file; arrays that do not belong together; values beyond the levels.
    """
    parts = _read(path)
    labels = parts.get("train_labels")
    if "held_out" in parts:
        train, held = parts["train"], parts["held_out"]
        held_labels = parts.get("held_out_labels")
    else:
        mask = held_out_mask(labels, len(parts["train"]), held_out)
        train, held = _split(parts["train"], mask)
        labels, held_labels = (None, None) if labels is None else (labels[~mask], labels[mask])
    classes = (
        0
        if labels is None
        else 1 + max(int(part.max()) for part in (labels, held_labels) if part is not None and len(part))
    )
    scaling = _scaling(path, parts["train"], levels, low, high)
    return Dataset(
        name=name,
        train=train,
        held_out=held,
        scaling=scaling,
        train_labels=labels,
        held_out_labels=held_labels,
        classes=classes,
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"path = {path} is not accepted; accepted: an .npy or .npz file.")
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        parts = dict(loaded) if path.suffix == ".npz" else {"train": loaded}
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a whole NumPy file: {error}") from error
    if "train" not in parts or not set(parts) <= set(KEYS):
        raise ValueError(
            f"{path} holds the arrays {', '.join(parts)}; accepted: train, and any of {', '.join(KEYS[1:])}."
        )
    for key, array in parts.items():
        if key.endswith("labels"):
            if array.dtype.kind not in "iu":
                raise ValueError(f"{path}: {key} has dtype {array.dtype}; accepted: integers.")
            parts[key] = array.astype(np.int32)
        elif array.dtype.kind in "iu" and array.ndim == 3:
            parts[key] = array[..., None]
    return parts


def _split(samples: np.ndarray, mask: np.ndarray) -> tuple[Samples, Samples]:
    if isinstance(samples, np.memmap):
        return SelectedSamples(samples, np.flatnonzero(~mask)), SelectedSamples(samples, np.flatnonzero(mask))
    return samples[~mask], samples[mask]


def _scaling(path: Path, samples: np.ndarray, levels: int, low: float | int, high: float | int) -> AbstractScaling:
    if samples.dtype.kind == "f":
        return Unscaled()
    if samples.dtype.kind not in "iu" or samples.ndim != 4:
        raise ValueError(
            f"{path}: train has dtype {samples.dtype} and shape {samples.shape}; accepted: integer images (n, height, "
            "width[, channels]), or floating-point samples (n, ...)."
        )
    if len(samples) and not 0 <= samples.min() <= samples.max() < levels:
        raise ValueError(
            f"{path}: train has values in [{samples.min()}, {samples.max()}]; accepted with levels = {levels}: "
            f"[0, {levels - 1}]."
        )
    return GreyLevels(levels, low, high)
