"""Where the numbers of training live, and how the one pure step is compiled for that."""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

Mean: TypeAlias = Callable[[Any], Any]
"""The mean of a tree over the devices, inside the step: see `sdelab.train.make_train_step`."""

Step: TypeAlias = Callable[[Any, Any, Any], tuple[Any, Any]]
"""`(carry, batch, root_key) -> (carry, token)`; see `sdelab.train.window`."""

AXIS = "data"
"""Name of the axis of devices over which a batch is split."""


class AbstractPlacement(abc.ABC):
    """Devices, and the layout of carry and batch on them. The step knows none of it, so all placements train alike.

    Trees come in two forms. *At rest* every array has its own shape, as in a checkpoint, and `shardings` says where its
    parts are. *Running* is what the compiled step takes and returns; `enter` and `leave` go from one to the other.
    A batch is global: its size is the sum over all devices of all processes, and sample i is the same sample whatever
    the placement, because its random keys are made from its global index.

    Every placement is on all devices of all processes, unless it is given others: those of a machine that is not there,
    for instance, for which a step can be compiled.
    """

    @property
    @abc.abstractmethod
    def shares(self) -> int:
        """The number of equal parts that a batch is split into, one a device."""

    @abc.abstractmethod
    def rows(self, batch_size: int) -> np.ndarray:
        """The rows of a global batch that this process feeds, increasing."""

    @abc.abstractmethod
    def shardings(self, tree: Any) -> Any:
        """The sharding at rest of every leaf of a tree of arrays or shapes."""

    @abc.abstractmethod
    def enter(self, tree: Any) -> Any:
        """From rest to running."""

    @abc.abstractmethod
    def leave(self, tree: Any) -> Any:
        """From running to rest."""

    @abc.abstractmethod
    def send(self, rows: Any, axis: int = 0) -> Any:
        """The batch as the compiled step takes it, from the rows that this process feeds; `axis` is that of the batch."""

    @abc.abstractmethod
    def entered(self, tree: Any) -> Any:
        """Shapes of what `enter` makes of arrays of the given shapes, with their shardings."""

    @abc.abstractmethod
    def sent(self, batch: Any, axis: int = 0) -> Any:
        """Shapes of what `send` makes of a whole batch of the given shapes, with their shardings."""

    @abc.abstractmethod
    def compile(self, make_step: Callable[[Mean], Step]) -> Step:
        """The step, compiled; it takes over the buffers of the carry, which is then gone.

        It is so at its first call, or before by its `lower` with what `entered` and `sent` return: see `jax.stages`.
        """

    def maker(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """`make`, compiled so that what it returns is at rest, each device making its own part."""
        return jax.jit(make, out_shardings=self.shardings(jax.eval_shape(make)))

    def template(self, tree: Any) -> Any:
        """Shapes and dtypes with the shardings at rest: what a checkpoint of any other placement is restored into."""
        return with_shardings(tree, self.shardings(tree))

    def check_batch_size(self, batch_size: int, pieces: int = 1) -> None:
        """Errors: a batch that `pieces` (of gradient accumulation) on every device do not divide, with the nearest that do."""
        unit = self.shares * pieces
        if batch_size % unit:
            lower, upper = batch_size // unit * unit, -(-batch_size // unit) * unit
            nearest = f"{lower} and {upper}" if lower else f"{upper}"
            shared = f"{self.shares} devices" + (f" x {pieces} pieces" if pieces > 1 else "")
            raise ValueError(
                f"batch_size = {batch_size} is not accepted; it is the size over all devices and must be a multiple of "
                f"{unit} ({shared}). Nearest: {nearest}."
            )


def with_shardings(tree: Any, shardings: Any) -> Any:
    """The shapes and dtypes of a tree of arrays or shapes, with the given shardings."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
