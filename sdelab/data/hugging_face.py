from typing import Any

from sdelab._extras import import_extra
from sdelab.data.dataset import Dataset
from sdelab.data.images import AbstractFit
from sdelab.data.records import RecordFiles, load_records


def load_hugging_face(
    dataset: str,
    fit: AbstractFit,
    *,
    train: str = "train",
    held_out: str = "test",
    image: str = "image",
    label: str = "label",
    directory: str | None = None,
    **settings: Any,
) -> Dataset:
    """Images of a data set of the Hugging Face hub, or in its layout on the disk; needs the extra `sdelab[hf]`.

    `dataset` as in `datasets.load_dataset`, which downloads what is not in its cache, or in `directory`. `train` and
    `held_out` are splits, such as "train[:90%]"; `image` and `label` name columns, "" for no labels; `settings` are those
    of `load_records`. https://huggingface.co/docs/datasets.
    Errors: `MissingExtra`; those of `datasets` for what is not there.
    """
    datasets = import_extra("datasets", "hf", f"the data set {dataset!r} of the Hugging Face hub")
    sources = []
    for split in (train, held_out):
        source = datasets.load_dataset(dataset, split=split, cache_dir=directory)
        sources.append(source.cast_column(image, datasets.Image(decode=False)))  # bytes: decoded as all other images
    labels = tuple([int(value) for value in source[label]] for source in sources) if label else None
    files = [
        RecordFiles(f"hf/{dataset}/{split}", source, image)
        for split, source in zip((train, held_out), sources, strict=True)
    ]
    return load_records(dataset.replace("/", "_"), *files, fit, labels=labels, **settings)
