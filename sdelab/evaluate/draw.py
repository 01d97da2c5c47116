"""Many samples, a batch at a time."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sdelab._typing import PRNGKey
from sdelab.evaluate.batched import Work, by_row, complete, laid_out, split, split_keys
from sdelab.evaluate.parts import InMemory
from sdelab.reverse import AbstractReverseProcess
from sdelab.sampling import SampleInfo, sample_with_info
from sdelab.train.placement import AbstractPlacement
from sdelab.train.placement_one import OneDevice


def sampling(
    key: PRNGKey,
    process: AbstractReverseProcess,
    event_shape: tuple[int, ...],
    *,
    placement: AbstractPlacement,
    condition: Any = None,
    **arguments: Any,
) -> Work:
    """The work of drawing samples by their numbers: `x`, `evaluations`, and `accepted` and `rejected` steps.

    Sample i draws from its own key, `fold_in(key, i)`, with entry i of `condition`, whatever the batch and the devices.
    `arguments` as in `sample_with_info`; a solve that does not arrive is an error.
    """
    process = laid_out(placement, process)

    def work(rows: np.ndarray) -> dict[str, Array | None]:
        given = process if condition is None else process.given(split(placement, by_row(rows, condition)))
        keys = split_keys(placement, key, rows)
        x, info = sample_with_info(keys, given, (len(rows), *event_shape), throw=True, **arguments)
        return {"x": x, "evaluations": info.evaluations, "accepted": info.accepted, "rejected": info.rejected}

    return work


def draw(
    key: PRNGKey,
    process: AbstractReverseProcess,
    shape: tuple[int, ...],
    *,
    condition: Any = None,
    batch_size: int = 256,
    placement: AbstractPlacement | None = None,
    **arguments: Any,
) -> tuple[Array, SampleInfo]:
    """Samples of shape `shape` and their information, `batch_size` at a time; `arguments` as in `sampling`.

    `placement`: the devices, `DataParallel()` for all that there are (default: the first). Neither it nor the batches change
    anything but memory and time. In a run of several processes each has all samples in the end.
    """
    placement = OneDevice() if placement is None else placement
    work = sampling(key, process, shape[1:], placement=placement, condition=condition, **arguments)
    with InMemory(shape[0], batch_size) as parts:
        complete(parts, work, placement)
        x, evaluations, accepted, rejected = (parts.read(name) for name in ("x", "evaluations", "accepted", "rejected"))
    info = jax.tree.map(jnp.asarray, (evaluations, accepted, rejected))
    return jnp.asarray(x), SampleInfo(*info, result=diffrax.RESULTS.successful)
