from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sdelab.train.placement import AXIS, AbstractPlacement, Mean, Step


class ParallelMap(AbstractPlacement):
    """`jax.pmap`: the same step on every device with its share of the batch, loss and gradients averaged by `lax.pmean`.

    Running, every array has a leading axis of this process's devices, which all hold the same numbers. JAX keeps `pmap`
    for codes and clusters that use it; `DataParallel` does the same work.
    """

    def __init__(self):
        self._whole = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec())
        self._stacked = NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec(AXIS))

    @property
    def shares(self) -> int:
        return jax.device_count()

    def rows(self, batch_size: int) -> np.ndarray:
        count = batch_size // jax.process_count()
        return jax.process_index() * count + np.arange(count)

    def shardings(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: self._whole, tree)

    def enter(self, tree: Any) -> Any:
        def stack(x: Any) -> Any:
            parts = {shard.device: shard.data[None] for shard in x.addressable_shards}
            return _assemble((len(parts), *x.shape), self._stacked, parts)

        return jax.tree.map(stack, tree)

    def leave(self, tree: Any) -> Any:
        def unstack(x: Any) -> Any:
            parts = {shard.device: shard.data.reshape(x.shape[1:]) for shard in x.addressable_shards}
            return _assemble(x.shape[1:], self._whole, parts)

        return jax.tree.map(unstack, tree)

    def send(self, rows: Any, axis: int = 0) -> Any:
        count = jax.local_device_count()

        def split(x: Any) -> np.ndarray:
            x = np.asarray(x)
            x = x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
            return np.moveaxis(x, axis, 0)

        return jax.device_put(jax.tree.map(split, rows), self._stacked)

    def compile(self, make_step: Callable[[Mean], Step], axis: int = 0) -> Step:
        step = make_step(lambda tree: jax.lax.pmean(tree, AXIS))
        return jax.pmap(step, axis_name=AXIS, donate_argnums=0)


def _assemble(shape: tuple[int, ...], sharding: NamedSharding, parts: dict[Any, Any]) -> Any:
    here = [parts[device] for device in jax.local_devices()]
    return jax.make_array_from_single_device_arrays(shape, sharding, here)
