"""`jax.jit` over a mesh of all devices."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sdelab.train.placement import AXIS, AbstractPlacement, Mean, Step, with_shardings

SMALLEST = 2**12
"""Arrays of fewer numbers are kept whole on every device: gathering them costs more than they take."""


class AbstractMeshPlacement(AbstractPlacement):
    """A batch split over a mesh of one axis, all devices of all processes; subclasses say how the state lies on it."""

    def __init__(self, devices: Sequence[Any] | None = None):
        devices = list(devices or jax.devices())
        # The default of `make_mesh` is explicit axes, which the step would have to know of.
        self.mesh: Mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)

    @abc.abstractmethod
    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """How an array of the state with the given shape is split."""

    @property
    def shares(self) -> int:
        return self.mesh.size

    def rows(self, batch_size: int) -> np.ndarray:
        here = NamedSharding(self.mesh, PartitionSpec(AXIS)).addressable_devices_indices_map((batch_size,))
        rows = [np.arange(batch_size)[index] for index in here.values() if index is not None]
        return np.sort(np.concatenate(rows))

    def shardings(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: NamedSharding(self.mesh, self.spec(x.shape)), tree)

    def enter(self, tree: Any) -> Any:
        return tree

    def leave(self, tree: Any) -> Any:
        return tree

    def send(self, rows: Any, axis: int = 0) -> Any:
        sharding = NamedSharding(self.mesh, _split(axis))
        if jax.process_count() == 1:
            return jax.device_put(rows, sharding)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), rows)

    def entered(self, tree: Any) -> Any:
        return self.template(tree)

    def sent(self, batch: Any, axis: int = 0) -> Any:
        sharding = NamedSharding(self.mesh, _split(axis))
        return with_shardings(batch, jax.tree.map(lambda x: sharding, batch))


class DataParallel(AbstractMeshPlacement):
    """The state whole on every device; gradients are averaged once a step.

    The step runs by itself on every device, with its share of the batch: left to the compiler, the gradient of every
    piece of an accumulated batch would be averaged.
    """

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        return PartitionSpec()

    def compile(self, make_step: Callable[[Mean], Step], axis: int = 0) -> Step:
        step = make_step(lambda tree: jax.lax.pmean(tree, AXIS))
        whole = PartitionSpec()
        # `check_vma` would have every array say on which devices it differs, and the step knows of none
        local = jax.shard_map(
            step, mesh=self.mesh, in_specs=(whole, _split(axis), whole), out_specs=whole, check_vma=False
        )
        return jax.jit(local, donate_argnums=0)


class FullySharded(AbstractMeshPlacement):
    """Parameters, averages and optimiser state split too, each along its largest axis that the devices divide.

    Every device holds 1/n of the state; parameters are gathered where a layer needs them. Rajbhandari et al. (2020),
    https://arxiv.org/abs/1910.02054, stage 3. Arrays with fewer than 4096 numbers, or no axis that divides, are whole.
    The compiler puts in the communication, from the shardings alone. No device holds a whole gradient, so that of every
    piece of an accumulated batch is reduced.
    """

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        axes = [axis for axis, size in enumerate(shape) if size % self.mesh.size == 0]
        if not axes or np.prod(shape) < SMALLEST:
            return PartitionSpec()
        largest = max(axes, key=lambda axis: shape[axis])
        return _split(largest)

    def compile(self, make_step: Callable[[Mean], Step], axis: int = 0) -> Step:
        step = make_step(lambda tree: tree)  # arrays are global here: a mean is a mean

        def placed(carry: Any, batch: Any, root_key: Any) -> tuple[Any, Any]:
            carry, token = step(carry, batch, root_key)
            # without it the compiler chooses, and the next call would not fit what it chose
            return jax.lax.with_sharding_constraint(carry, self.shardings(carry)), token

        return jax.jit(placed, donate_argnums=0)


def _split(axis: int) -> PartitionSpec:
    """Along one axis, over all devices."""
    return PartitionSpec(*[None] * axis, AXIS)
