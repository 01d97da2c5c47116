from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sdelab.train.placement import AbstractPlacement, Mean, Step


class OneDevice(AbstractPlacement):
    """`jax.jit` on the first device of one process. Errors: a run of several processes."""

    def __init__(self, devices: Sequence[Any] | None = None):
        if jax.process_count() > 1:
            raise ValueError(
                f"placement = 'jit' is not accepted in a run of {jax.process_count()} processes: it is one device of one "
                "process. Accepted: data, fsdp, pmap."
            )
        self._sharding = jax.sharding.SingleDeviceSharding((devices or jax.local_devices())[0])

    @property
    def shares(self) -> int:
        return 1

    def rows(self, batch_size: int) -> np.ndarray:
        return np.arange(batch_size)

    def shardings(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: self._sharding, tree)

    def enter(self, tree: Any) -> Any:
        return tree

    def leave(self, tree: Any) -> Any:
        return tree

    def send(self, rows: Any, axis: int = 0) -> Any:
        return jax.device_put(rows, self._sharding)

    def entered(self, tree: Any) -> Any:
        return self.template(tree)

    def sent(self, batch: Any, axis: int = 0) -> Any:
        return self.template(batch)

    def compile(self, make_step: Callable[[Mean], Step]) -> Step:
        return jax.jit(make_step(lambda tree: tree), donate_argnums=0)
