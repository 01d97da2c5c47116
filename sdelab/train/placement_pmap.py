from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sdelab.train.placement import AXIS, AbstractPlacement, Mean, Step, with_shardings


class ParallelMap(AbstractPlacement):
    """`jax.pmap`: the same step on every device with its share of the batch, loss and gradients averaged by `lax.pmean`.

    Running, every array has a leading axis of this process's devices, which all hold the same numbers. JAX keeps `pmap`
    for codes and clusters that use it; `DataParallel` does the same work.
    """

    def __init__(self, devices: Sequence[Any] | None = None):
        self._chosen = devices
        everywhere = list(devices or jax.devices())
        self._here = [device for device in everywhere if device.process_index == jax.process_index()]
        self._whole = NamedSharding(Mesh(np.array(everywhere), (AXIS,)), PartitionSpec())

    @property
    def shares(self) -> int:
        return self._whole.mesh.size

    def rows(self, batch_size: int) -> np.ndarray:
        count = batch_size // jax.process_count()
        return jax.process_index() * count + np.arange(count)

    def shardings(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: self._whole, tree)

    def enter(self, tree: Any) -> Any:
        def stack(x: Any) -> Any:
            parts = {shard.device: shard.data[None] for shard in x.addressable_shards}
            return self._assemble((len(parts), *x.shape), self._stacked, parts)

        return jax.tree.map(stack, tree)

    def leave(self, tree: Any) -> Any:
        def unstack(x: Any) -> Any:
            parts = {shard.device: shard.data.reshape(x.shape[1:]) for shard in x.addressable_shards}
            return self._assemble(x.shape[1:], self._whole, parts)

        return jax.tree.map(unstack, tree)

    def send(self, rows: Any, axis: int = 0) -> Any:
        def split(x: Any) -> np.ndarray:
            return _split(np.asarray(x), len(self._here), axis)

        return jax.device_put(jax.tree.map(split, rows), self._stacked)

    def entered(self, tree: Any) -> Any:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.shares, *x.shape), x.dtype), tree)
        return self._everywhere(shapes)

    def sent(self, batch: Any, axis: int = 0) -> Any:
        def split(batch: Any) -> Any:
            return jax.tree.map(lambda x: _split(x, self.shares, axis), batch)

        return self._everywhere(jax.eval_shape(split, batch))

    def compile(self, make_step: Callable[[Mean], Step]) -> Step:
        step = make_step(lambda tree: jax.lax.pmean(tree, AXIS))
        return jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=self._chosen)

    @property
    def _stacked(self) -> NamedSharding:
        return NamedSharding(Mesh(np.array(self._here), (AXIS,)), PartitionSpec(AXIS))

    def _everywhere(self, shapes: Any) -> Any:
        stacked = NamedSharding(self._whole.mesh, PartitionSpec(AXIS))
        return with_shardings(shapes, jax.tree.map(lambda x: stacked, shapes))

    def _assemble(self, shape: tuple[int, ...], sharding: NamedSharding, parts: dict[Any, Any]) -> Any:
        here = [parts[device] for device in self._here]
        return jax.make_array_from_single_device_arrays(shape, sharding, here)


def _split(x: Any, count: int, axis: int) -> Any:
    """The batch, axis `axis`, in `count` parts along a new leading axis."""
    x = x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
    return x.transpose(axis, *(i for i in range(x.ndim) if i != axis))
