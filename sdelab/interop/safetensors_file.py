"""Weights of a run as a safetensors file, which other frameworks read without executing anything.

The format is an 8-byte length, a JSON header and raw bytes: https://huggingface.co/docs/safetensors.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from sdelab.train import TrainedRun


def write_safetensors(path: Path | str, trained: TrainedRun) -> Path:
    """Writes the run's weights under their names in the network, joined by dots, and returns the path.

    Kernels are laid out as in Flax: `(*space, in, out)` and `(in, out)`. The metadata are strings of JSON: `config`,
    `record`, `weights` ("averaged" or "raw") and `step`. The file is the old one or the new one, never a part.
    """
    path = Path(path)
    # What is not contiguous would be written in the order that it has in memory, under the shape that it does not have there.
    arrays = {name: np.ascontiguousarray(array) for name, array in named_arrays(trained.score.params).items()}
    told = {"config": trained.config, "record": trained.record, "step": trained.step, "weights": trained.weights}
    part = path.with_name(path.name + ".part")
    save_file(arrays, part, {key: json.dumps(value, sort_keys=True) for key, value in told.items()})
    os.replace(part, path)
    return path


def read_safetensors(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the metadata of a file of `write_safetensors`."""
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        return arrays, {key: json.loads(value) for key, value in file.metadata().items()}


def named_arrays(params: Any) -> dict[str, np.ndarray]:
    """The leaves of a nested dict by their paths, joined by dots."""
    return {
        ".".join(str(entry.key) for entry in path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)
    }
