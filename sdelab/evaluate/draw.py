"""Many samples, a chunk at a time."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from tqdm import tqdm

from sdelab._checks import check_count
from sdelab._typing import PRNGKey
from sdelab.reverse import AbstractReverseProcess
from sdelab.sampling import SampleInfo, sample_with_info
from sdelab.solvers import sample_keys


def draw(
    key: PRNGKey,
    process: AbstractReverseProcess,
    shape: tuple[int, ...],
    *,
    condition: Any = None,
    chunk: int = 256,
    **arguments: Any,
) -> tuple[Array, SampleInfo]:
    """Samples of shape `shape` and their information, `chunk` at a time; `arguments` as in `sample_with_info`.

    Sample i draws from its own key: the chunks change nothing but the memory. The last one is filled up with samples
    that are thrown away, so that one program serves all. A terminal shows how far it is.
    """
    check_count(chunk=chunk, count=shape[0])
    chunk = min(chunk, shape[0])
    rows = jnp.arange(-(-shape[0] // chunk) * chunk).reshape(-1, chunk)
    keys = sample_keys(key, rows.size)
    parts = []
    for row in tqdm(rows, unit="chunk", disable=None if len(rows) > 1 else True):
        taken = jnp.minimum(row, shape[0] - 1)
        given = process if condition is None else process.given(jax.tree.map(lambda leaf, i=taken: leaf[i], condition))
        parts.append(sample_with_info(keys[row], given, (chunk, *shape[1:]), **arguments))
    samples = jnp.concatenate([x for x, _ in parts])[: shape[0]]
    evaluations = [info.evaluations for _, info in parts if info.evaluations is not None]
    info = SampleInfo(
        evaluations=jnp.concatenate(evaluations)[: shape[0]] if evaluations else None,
        accepted=jnp.concatenate([info.accepted for _, info in parts])[: shape[0]],
        rejected=jnp.concatenate([info.rejected for _, info in parts])[: shape[0]],
        result=[info.result for _, info in parts],
    )
    return samples, info
