from typing import Any

from sdelab._extras import import_extra
from sdelab.data.dataset import Dataset
from sdelab.data.images import AbstractFit
from sdelab.data.records import RecordFiles, load_records


def load_tfds(
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
    """Images of TensorFlow Datasets, by random access and without TensorFlow; needs the extra `sdelab[tfds]`.

    The data set must have been prepared as ArrayRecord, in `directory` or where TFDS has its data:
    `tfds.builder(dataset, file_format="array_record").download_and_prepare()`, which itself needs TensorFlow. `train` and
    `held_out` are splits, such as "train[:90%]"; `image` and `label` name features, "" for no labels; `settings` are those
    of `load_records`. https://www.tensorflow.org/datasets/data_source.
    Errors: `MissingExtra`; those of TFDS for what is not there.
    """
    tfds = import_extra("tensorflow_datasets", "tfds", f"the data set {dataset!r} of TFDS")
    decoders = {image: tfds.decode.SkipDecoding()}
    sources = [
        tfds.data_source(dataset, split=split, data_dir=directory, decoders=decoders, download=False)
        for split in (train, held_out)
    ]
    labels = tuple([int(source[row][label]) for row in range(len(source))] for source in sources) if label else None
    files = [
        RecordFiles(f"tfds/{dataset}/{split}", source, image)
        for split, source in zip((train, held_out), sources, strict=True)
    ]
    return load_records(dataset.replace("/", "_"), *files, fit, labels=labels, **settings)
