"""What to change in a configuration whose step does not fit into the memory of a device."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sdelab.train.build import MODELS, parameters_of
from sdelab.train.placement_mesh import FullySharded
from sdelab.train.preflight import Step, held_bytes


def remedies(config: Mapping[str, Any], step: Step, total: int, limit: int, devices: Sequence[Any]) -> list[str]:
    """Changes of the configuration, those that leave the numbers alone first.

    `total` bytes are what the step needs on a device, `limit` what there are. The estimates take all but the state to
    shrink with the rows of a batch that are computed at once: a preflight of the change says what it comes to.
    """
    temporaries = max(total - step.held, 0)
    found = [*_sharding(step, total, devices), *_accumulation(config, step, temporaries, limit)]
    return [*found, *_model(config), *_batch(config, step, temporaries, limit)]


def _sharding(step: Step, total: int, devices: Sequence[Any]) -> Iterator[str]:
    if isinstance(step.placement, FullySharded) or len(devices) < 2:
        return
    held = held_bytes(FullySharded(devices), step.shapes)
    yield f"--config.run.placement=fsdp: the state split over {len(devices)} devices, about {_gib(total - step.held + held)}"


def _accumulation(config: Mapping[str, Any], step: Step, temporaries: int, limit: int) -> Iterator[str]:
    """The fewest pieces that fit: besides a piece's activations, the sum of the gradients is kept."""
    pieces, rows = step.pieces, config["optim"]["batch_size"] // (step.placement.shares * step.pieces)
    for factor in (factor for factor in range(2, rows + 1) if rows % factor == 0):
        needed = step.held + temporaries // factor + step.gradient
        if needed <= limit or factor == rows:
            words = f"about {_gib(needed)}" + ("" if needed <= limit else ", still too much")
            yield f"--config.run.pieces={pieces * factor}: the batch in so many parts, in turn, {words}"
            return


def _model(config: Mapping[str, Any]) -> Iterator[str]:
    model = config["model"]
    parameters = parameters_of(MODELS[model["name"]])
    if "rematerialise" in parameters and not model.get("rematerialise", False):
        yield "--config.model.rematerialise=True: activations computed again in the backward pass, for about a third more time"
    if "dtype" in parameters and str(model.get("dtype", "float32")) == "float32":
        yield "--config.model.dtype=bfloat16: about half of the activations' memory, and other numbers"


def _batch(config: Mapping[str, Any], step: Step, temporaries: int, limit: int) -> Iterator[str]:
    """The largest batch that fits, if temporaries are in proportion to it."""
    size, unit = config["optim"]["batch_size"], step.placement.shares * step.pieces
    room = max(limit - step.held, 0) / max(temporaries, 1)
    largest = int(size * min(room, 1.0)) // unit * unit
    if largest:
        yield f"--config.optim.batch_size={largest}, and other numbers; or more devices for the same batch"
    else:
        yield "more devices, or chips with more memory: no batch fits beside the state"


def _gib(size: float | int) -> str:
    return f"{size / 2**30:.2f} GiB"
