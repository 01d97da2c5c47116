"""Files that the real writers made, put together from `tests/fixtures/interop` and the weights of `B_nets`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures"
INTEROP = FIXTURES / "interop"


def restore(name: str, path: Path) -> Path:
    """Writes the file of that name to `path`, byte for byte as the real writer wrote it."""
    with np.load(INTEROP / f"{name}.npz") as stored:
        blob = bytearray(stored["template"].tobytes())
        weights = network(str(stored["fixture"]))["weights"]
        for start, key, factor in zip(stored["offset"], stored["name"], stored["factor"], strict=True):
            raw = (weights[key] * np.float32(factor)).astype(weights[key].dtype).tobytes()
            blob[start : start + len(raw)] = raw
        assert hashlib.sha256(blob).hexdigest() == str(stored["sha256"])
    path.write_bytes(blob)
    return path


def network(name: str) -> dict[str, Any]:
    """A fixture of `B_nets`: its arrays by name, `weights` by published name, and `meta`."""
    with np.load(FIXTURES / "B_nets" / f"{name}.npz") as arrays:
        weights = {key.removeprefix("param:"): arrays[key] for key in arrays.files if key.startswith("param:")}
        rest = {key: arrays[key] for key in arrays.files if not key.startswith("param:") and key != "__meta__"}
        return rest | {"weights": weights, "meta": json.loads(str(arrays["__meta__"]))}
