"""A training step compiled ahead of time, for devices that need not be there, and what its program says of itself."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from sdelab.train.build import Experiment, batch_shapes, build, declare_dataset
from sdelab.train.collectives import Collective, read_collectives
from sdelab.train.dispatch import single_step
from sdelab.train.flops import product_flops
from sdelab.train.placement import AbstractPlacement
from sdelab.train.run import build_placement
from sdelab.train.state import TrainState
from sdelab.train.step import METRICS
from sdelab.train.window import empty_window

BACKWARD = 2
"""The products of a backward pass for one of a forward pass: one for the inputs and one for the weights.

Chowdhery et al. (2022), appendix B, https://arxiv.org/abs/2204.02311.
"""

_USED = re.compile(
    r"Used ([\d.]+)([KMG]?) of ([\d.]+)([KMG]?) hbm|\(([\d.]+)([KMG]?)\) exceeds available HBM \(([\d.]+)([KMG]?)\)"
)
"""How the TPU's compiler says, when it lays memory out and before, that a program does not fit."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device while a step runs.

    Fields: `arguments`, the state and the batch; `temporaries`; `outputs`, of which `donated` lie where arguments lay;
    `code` of the program.
    """

    arguments: int
    temporaries: int
    outputs: int
    donated: int
    code: int

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries + self.outputs - self.donated + self.code


class TooLarge(MemoryError):
    """The compiler found no way to fit the program into the memory of a device: `used` bytes of `available`."""

    def __init__(self, used: int, available: int):
        super().__init__(f"the program takes {used} bytes of a device's memory, which has {available}.")
        self.used, self.available = used, available


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled training step, a device.

    Fields: `memory`; `flops` and `accessed`, operations and bytes of memory traffic by the compiler's own count, which
    takes a loop's body once: times the pieces of a batch here, and so a little too much; `collectives`, in the program's
    order; `seconds`, the compiler's own estimate, None if it makes none.
    """

    memory: Memory
    flops: float
    accessed: float
    collectives: tuple[Collective, ...]
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step before it is compiled.

    Fields: `placement`; `lowered`; `shapes` of the training state; `pieces` that a batch is computed in; `flops` of the
    model for one batch, those of the products in one forward and one backward pass.
    """

    placement: AbstractPlacement
    lowered: jax.stages.Lowered
    shapes: TrainState
    pieces: int
    flops: int

    @property
    def parameters(self) -> list[Any]:
        """The shapes of the parameters, and of one gradient."""
        return jax.tree.leaves(self.shapes["params"])

    @property
    def gradient(self) -> int:
        """Bytes of one gradient."""
        return tree_bytes(self.parameters)

    @property
    def state(self) -> int:
        """Bytes of the whole training state."""
        return tree_bytes(self.shapes)

    @property
    def held(self) -> int:
        """Bytes of it on one device."""
        return held_bytes(self.placement, self.shapes)


def lower_step(config: Mapping[str, Any], devices: Sequence[Any]) -> Step:
    """The very step that `fit` compiles for a configuration, on the given devices; from shapes alone, also of the data.

    Errors: those of `build`, and a batch that the devices do not divide.
    """
    experiment = build(config, declare_dataset(config))
    placement = build_placement(experiment.run, experiment.optim.batch_size, devices)
    batch = batch_shapes(experiment.optim.batch_size, experiment.dataset.event_shape)
    state = jax.eval_shape(experiment.init_state, experiment.score.params)
    carry = placement.entered({"state": state, "window": jax.eval_shape(lambda: empty_window(METRICS))})
    key = placement.entered(jax.eval_shape(lambda: jax.random.key(0)))
    compiled: Any = placement.compile(single_step(experiment.train_step))
    return Step(
        placement=placement,
        lowered=compiled.lower(carry, placement.sent(batch), key),
        shapes=state,
        pieces=experiment.run.pieces,
        flops=_model_flops(experiment, batch, state),
    )


def compile_step(step: Step) -> Program:
    """Compiles, and reads what the program says. Errors: `TooLarge`, from compilers that know the memory they compile for."""
    try:
        compiled = step.lowered.compile()
    except JaxRuntimeError as error:
        sizes = read_shortage(str(error))
        if sizes is None:
            raise
        raise TooLarge(*sizes) from error
    sizes: Any = compiled.memory_analysis()
    costs: Any = compiled.cost_analysis()
    seconds = step.pieces * costs.get("optimal_seconds", 0.0)
    return Program(
        memory=Memory(
            arguments=sizes.argument_size_in_bytes,
            temporaries=sizes.temp_size_in_bytes,
            outputs=sizes.output_size_in_bytes,
            donated=sizes.alias_size_in_bytes,
            code=sizes.generated_code_size_in_bytes,
        ),
        flops=step.pieces * costs.get("flops", math.nan),
        accessed=step.pieces * costs.get("bytes accessed", math.nan),
        collectives=read_collectives(compiled.as_text() or "", step.placement.shares),
        seconds=seconds if seconds > 0.0 else None,
    )


def read_shortage(message: str) -> tuple[int, int] | None:
    """Bytes that a program takes and bytes that there are, from a compiler's error; None if it is about something else."""
    found = _USED.search(message)
    if found is None:
        return None
    used, used_unit, available, unit = (group for group in found.groups() if group is not None)
    return int(float(used) * _UNITS[used_unit]), int(float(available) * _UNITS[unit])


def _model_flops(experiment: Experiment, batch: Any, state: TrainState) -> int:
    size = experiment.optim.batch_size
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    step_key = jax.eval_shape(lambda: jax.random.key(0))
    forward = product_flops(experiment.loss_fn, state["params"], keys, {**batch, "step_key": step_key})
    return (1 + BACKWARD) * forward


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree of shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def held_bytes(placement: AbstractPlacement, tree: Any) -> int:
    """Bytes that one device has of a tree of shapes."""
    shapes, shardings = jax.tree.leaves(tree), jax.tree.leaves(placement.shardings(tree))
    parts = [jax.ShapeDtypeStruct(s.shard_shape(x.shape), x.dtype) for x, s in zip(shapes, shardings, strict=True)]
    return tree_bytes(parts)
