"""From a published checkpoint to a run: the directory that `sdelab sample`, `evaluate` and `load` take."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sdelab._checks import unknown_name
from sdelab.data.registry import LOADERS
from sdelab.interop import edm_config, score_sde_config
from sdelab.interop.published import Published, read_published
from sdelab.interop.score_sde_flax import score_sde_flax_params
from sdelab.interop.score_sde_torch import score_sde_torch_params
from sdelab.interop.translation import Config, Family, Translation, merged, plain
from sdelab.train import Checkpoints, init_state
from sdelab.train.build import build_dataset, build_model, build_optimizer
from sdelab.train.construct import parameters_of
from sdelab.train.record import record_of, write_json
from sdelab.train.step import METRICS
from sdelab.train.window import empty_window
from sdelab.train.workdir import RECORD, claim

SCORE_SDE: dict[str, Any] = {"presets": score_sde_config.PRESETS, "known": score_sde_config.COMMON, "described": False}
FAMILIES = {
    "edm": Family(edm_config.translate, edm_config.place, presets={}, known=edm_config.KNOWN, described=True),
    "score_sde_flax": Family(
        functools.partial(score_sde_config.translate, average="constant"),
        score_sde_flax_params,
        **SCORE_SDE,
    ),
    "score_sde_torch": Family(
        functools.partial(score_sde_config.translate, average="warmup"),
        score_sde_torch_params,
        **SCORE_SDE,
    ),
}
"""By the names of `sdelab import --from`, which are those of `READERS` too."""


WRITTEN = (RECORD, "checkpoints", "config.json", "imported.json")
"""In the directory of a run that was imported."""


@dataclasses.dataclass(frozen=True)
class ImportedRun:
    """What was made: the run's configuration, its step, and its parameters, arrays and numbers in all.

    `buffers` are the arrays of the file that are no parameters: tables and filters that a network of ours computes.
    """

    config: Config
    step: int
    arrays: int
    numbers: int
    buffers: int


def import_checkpoint(
    path: Path | str,
    workdir: Path | str,
    *,
    family: str,
    config: Config | None = None,
    weights: str = "averaged",
    data: str | Config | None = None,
) -> ImportedRun:
    """Reads a published checkpoint, and writes it to `workdir` as a run at the step where it was left.

    `family` is a name of `FAMILIES`; `config` is the published configuration, or changes of the one in the file;
    `weights`, "averaged" or "raw", become the run's averaged weights, which everything but training uses, while training
    goes on from the raw ones if the file has them, with fresh moments of the optimiser. `data` names a data set of ours,
    which evaluation and training need, or is a section `data`; size and scale of its images must be the network's, and are unless
    it says otherwise. What is neither a number nor a word in `config`, such as a device, is passed over if its key decides nothing.

    Errors: those of the readers; a configuration that is not known, or not one of ours; every array without a place and
    every parameter without an array, in one message; a `workdir` that holds a run.
    """
    if family not in FAMILIES:
        raise unknown_name("family of checkpoints", family, FAMILIES)
    kind, workdir = FAMILIES[family], Path(workdir)
    _check_empty(workdir)
    published = read_published(path, family)
    chosen = published.choose(weights)
    told = merged(published.config, plain(config or {}, kind.known))
    if not kind.described:
        check_told(published.config, told)
    translation = kind.translate(told, published.decay)
    ours = _whole(translation, _data_section(translation, data))
    fingerprint = _fingerprint(ours, translation)
    model = nnx.eval_shape(lambda: build_model(ours, translation.event_shape, jax.random.key(0)))
    average = _finite(kind.place(chosen, model))
    params = _finite(kind.place(published.choose("raw"), model)) if _has_both(published, weights) else average
    record = record_of(ours, fingerprint, translation.event_shape, translation.scaling)
    source = {"from": family, "file": Path(path).name, "sha256": _sha256(path), "weights": weights, "published": told}
    _write(workdir, params, average, published.step, record, source)
    sizes = [leaf.size for leaf in jax.tree.leaves(average)]
    return ImportedRun(ours, published.step, len(sizes), sum(sizes), len(chosen) - len(sizes))


def check_told(inside: Config, config: Config, where: str = "") -> None:
    """Errors: a number in the file that is not that of the configuration."""
    for key, value in inside.items():
        given = config[key]
        if isinstance(value, Mapping) and isinstance(given, Mapping):
            check_told(value, given, f"{where}{key}.")
        elif not (
            isinstance(value, float | int)
            and isinstance(given, float | int)
            and math.isclose(value, given, rel_tol=1e-4)
        ):
            raise ValueError(f"config: {where}{key} = {given!r} is not accepted; the checkpoint has {value}.")


def _check_empty(workdir: Path) -> None:
    for name in WRITTEN:
        if (workdir / name).exists():
            what = "a run" if name in (RECORD, "checkpoints") else name
            raise ValueError(f"workdir = {workdir} holds {what}; use another workdir.")


def _data_section(translation: Translation, data: str | Config | None) -> dict[str, Any]:
    """With the network's size and scale, where the data set takes them and is not told others."""
    if data is None:
        return {}
    section = {"name": data} if isinstance(data, str) else dict(data)
    if section.get("name") not in LOADERS:
        return section  # an error in time, with the closest
    network = {"size": translation.event_shape[0], "low": translation.scaling.low, "high": translation.scaling.high}
    taken = parameters_of(LOADERS[section["name"]])
    return {**section, **{key: value for key, value in network.items() if key in taken and key not in section}}


def _whole(translation: Translation, data: Config) -> dict[str, Any]:
    """With the sections that no published configuration has."""
    return {
        **translation.config,
        "data": data,
        "run": {
            "steps": translation.steps,
            "log_every": 50,
            "checkpoint_every": 10_000,
            "keep": 3,
            "tensorboard": False,
        },
        "seed": 0,
    }


def _fingerprint(config: Config, translation: Translation) -> str | None:
    """Of the data set. Errors: one whose images have another size or another scale than the network's."""
    if not config["data"]:
        return None
    dataset = build_dataset(config)
    if dataset.event_shape != translation.event_shape or dataset.scaling != translation.scaling:
        raise ValueError(
            f"data = {config['data']['name']!r} is not accepted: {dataset.event_shape} in {dataset.scaling}; the network was trained on "
            f"{translation.event_shape} in {translation.scaling}."
        )
    return dataset.fingerprint


def _has_both(published: Published, weights: str) -> bool:
    return weights == "averaged" and "raw" in published.weights


def _finite(params: Any) -> Any:
    for path, leaf in jax.tree.leaves_with_path(params):
        if not np.all(np.isfinite(np.asarray(leaf, np.float32))):
            raise ValueError(f"the checkpoint's values of {jax.tree_util.keystr(path)} are not finite.")
    return params


def _write(
    workdir: Path, params: Any, average: Any, step: int, record: Mapping[str, Any], source: Mapping[str, Any]
) -> None:
    params, average = jax.tree.map(jnp.asarray, (params, average))
    state = {
        **init_state(params, build_optimizer(record["config"])[0]),
        "ema": average,
        "step": jnp.asarray(step, jnp.int32),
    }
    with claim(workdir), _all_or_nothing(workdir):
        write_json(workdir / RECORD, record)
        write_json(workdir / "config.json", record["config"])
        write_json(workdir / "imported.json", source)
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            checkpoints.save(step, {"state": state, "window": empty_window(METRICS)}, {**record, "step": step})


@contextlib.contextmanager
def _all_or_nothing(workdir: Path) -> Iterator[None]:
    """An error leaves nothing behind that would be taken for a run. Errors: there is one already, which is left alone."""
    _check_empty(workdir)  # again: it is ours alone only now
    try:
        yield
    except BaseException:
        for name in WRITTEN:
            shutil.rmtree(workdir / name) if (workdir / name).is_dir() else (workdir / name).unlink(missing_ok=True)
        raise


def _sha256(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
