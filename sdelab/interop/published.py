"""Published checkpoints: what their files hold, by the names that it has there."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from sdelab._checks import unknown_name
from sdelab.interop.inert import InertModule, UnsafePickle
from sdelab.interop.pickled import UnreadableCheckpoint, reading
from sdelab.interop.torch_file import read_torch

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Published:
    """A checkpoint as its publisher wrote it.

    Fields: `weights`, arrays by name, under "averaged", "raw" or both; `step`, the updates made (0 if the file does not
    say); `decay`, of the average, if the file says it; `config`, what the file says of its network, in its
    publisher's words.
    """

    weights: Mapping[str, Arrays]
    step: int = 0
    decay: float | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def choose(self, kind: str) -> Arrays:
        """The averaged or the raw weights. Errors: a kind that the file does not hold."""
        if kind not in ("averaged", "raw"):
            raise unknown_name("kind of weights", kind, ("averaged", "raw"))
        if kind not in self.weights:
            raise ValueError(
                f"weights = {kind!r} is not accepted; the file holds {', '.join(self.weights)} weights only."
            )
        return self.weights[kind]


def read_score_sde_torch(path: Path | str) -> Published:
    """A `.pth` of score_sde_pytorch: `{"optimizer", "model", "ema", "step"}`. Names are those of the state_dict.

    The averages have no names in the file. They are in the order of the parameters that were trained: the model's
    entries, without the buffer `sigmas` and the frozen frequencies of a Fourier embedding, which are taken from the model.

    Errors: those of `read_torch`; `UnreadableCheckpoint` on a file with other contents.
    """
    tree = read_torch(path, skip=("optimizer",))
    with reading(Path(path)):
        _check_keys(tree, {"model": dict, "ema": dict, "step": int}, "a checkpoint of score_sde_pytorch")
        raw = _without_prefix(tree["model"], "module.")
        averaged = {**raw, **_named_averages(raw, tree["ema"]["shadow_params"])}
        decay = float(tree["ema"]["decay"])
        config = {"model": _levels(raw["sigmas"])} if "sigmas" in raw else {}
        return Published({"averaged": averaged, "raw": raw}, tree["step"], decay, config)


def read_score_sde_flax(path: Path | str) -> Published:
    """A checkpoint of score_sde in flax's msgpack, which holds data only. Names are paths, as `ResnetBlock_0/Conv_0/kernel`.

    Errors: `UnreadableCheckpoint`; `OSError`.
    """
    blob = Path(path).read_bytes()
    with reading(Path(path)):
        tree: Any = serialization.msgpack_restore(blob)
        _check_keys(tree, {"optimizer": dict, "params_ema": dict}, "a checkpoint of score_sde")
        _check_keys(tree["optimizer"], {"target": dict}, "the optimiser of score_sde")
        weights = {"averaged": dict(_paths(tree["params_ema"])), "raw": dict(_paths(tree["optimizer"]["target"]))}
        rate = tree.get("ema_rate")
        return Published(weights, step=int(tree.get("step", 0)), decay=None if rate is None else float(rate))


def read_edm(path: Path | str) -> Published:
    """A `.pkl` of EDM, averaged weights, or its `training-state-*.pt`, raw ones. Names are those of the state_dict.

    The pickle stores the source of the network's classes, to execute it: here it is passed over, and the network is
    read from its attributes. `config` has `class_name`, the class of the preconditioner, and the arguments that it was
    constructed with.

    Errors: those of `read_torch`; `UnreadableCheckpoint` on a file with other contents.
    """
    tree = read_torch(path, skip=("optimizer_state",))
    with reading(Path(path)):
        found = {}
        if isinstance(tree, dict):
            kinds = {"ema": "averaged", "net": "raw"}
            found = {kind: tree[key] for key, kind in kinds.items() if isinstance(tree.get(key), InertModule)}
        if not found:
            raise UnreadableCheckpoint(
                f"it is not a checkpoint of EDM: {_contents(tree)}; accepted: 'ema' or 'net', a network of EDM."
            )
        weights = {kind: dict(_tensors(network)) for kind, network in found.items()}
        return Published(weights, config=_arguments(next(iter(found.values()))))


READERS: dict[str, Callable[[Path | str], Published]] = {
    "edm": read_edm,
    "score_sde_flax": read_score_sde_flax,
    "score_sde_torch": read_score_sde_torch,
}
"""By the names of `sdelab import --from`."""


def read_published(path: Path | str, kind: str) -> Published:
    """By the reader of that name. Errors: its own; where another reader takes the file, the message names it."""
    try:
        return READERS[kind](path)
    except UnreadableCheckpoint as error:
        found = [other for other, reader in READERS.items() if other != kind and _takes(reader, path)]
        if not found:
            raise
        raise UnreadableCheckpoint(f"{str(error).rstrip('.')}. It can be read as {found[0]}.") from error


def _takes(reader: Callable[[Path | str], Published], path: Path | str) -> bool:
    try:
        reader(path)
    except (UnreadableCheckpoint, UnsafePickle):
        return False
    return True


def _check_keys(tree: Any, expected: Mapping[str, type], what: str) -> None:
    if not isinstance(tree, dict) or any(not isinstance(tree.get(key), kind) for key, kind in expected.items()):
        raise UnreadableCheckpoint(f"it is not {what}: {_contents(tree)}; accepted: {', '.join(expected)}.")


def _contents(tree: Any) -> str:
    found = ", ".join(str(key) for key in list(tree)[:8]) if isinstance(tree, dict) else type(tree).__name__
    return f"it holds {found or 'nothing'}"


def _without_prefix(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """Data-parallel training puts the model under a name of its own."""
    strangers = [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]
    if strangers:
        raise UnreadableCheckpoint(f"entry {strangers[0]!r} of the model is no tensor.")
    return {key.removeprefix(prefix): value for key, value in arrays.items()}


def _named_averages(raw: Arrays, shadows: Any) -> dict[str, np.ndarray]:
    names = [name for name in raw if name != "sigmas"]
    if len(shadows) != len(names):
        names = [name for name in names if not re.fullmatch(r"all_modules\.\d+\.W", name)]
    if len(shadows) != len(names):
        raise UnreadableCheckpoint(f"it holds {len(shadows)} averages of {len(names)} trained parameters.")
    averages = dict(zip(names, shadows, strict=True))
    for name, average in averages.items():
        if average.shape != raw[name].shape:
            raise UnreadableCheckpoint(
                f"the average of {name} has shape {average.shape}, where it has {raw[name].shape}."
            )
    return averages


def _levels(sigmas: np.ndarray) -> dict[str, Any]:
    """The table of noise levels that every model holds, largest first, in the words of a configuration."""
    return {"num_scales": sigmas.size, "sigma_max": float(f"{sigmas[0]:.6g}"), "sigma_min": float(f"{sigmas[-1]:.6g}")}


def _paths(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, leaf in tree.items():
        if isinstance(leaf, dict):
            yield from _paths(leaf, f"{above}{key}/")
        elif isinstance(leaf, np.ndarray):
            yield f"{above}{key}", leaf
        else:
            raise UnreadableCheckpoint(f"entry {above}{key} is no array.")


def _tensors(module: InertModule, above: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """As `torch.nn.Module.state_dict` orders and names them, with the buffers that it would leave out."""
    for kind in ("_parameters", "_buffers"):
        yield from (
            (f"{above}{name}", array) for name, array in module.state.get(kind, {}).items() if array is not None
        )
    for name, part in module.state.get("_modules", {}).items():
        if part is not None:
            yield from _tensors(part, f"{above}{name}.")


def _arguments(network: InertModule) -> dict[str, Any]:
    """What the network was constructed with, and what its blocks were that its own arguments do not say."""
    leading = ("img_resolution", "img_channels", "label_dim", "use_fp16")  # of every preconditioner of EDM
    given = dict(zip(leading, network.state.get("_init_args", ()), strict=False))
    inside = {block.state.get("_init_kwargs", {}).get("channels_per_head") for block in _parts(network)} - {None}
    heads = {"channels_per_head": inside.pop()} if len(inside) == 1 else {}
    return {"class_name": network.class_name, **given, **network.state.get("_init_kwargs", {}), **heads}


def _parts(module: InertModule) -> Iterator[InertModule]:
    yield module
    for part in module.state.get("_modules", {}).values():
        if part is not None:
            yield from _parts(part)
