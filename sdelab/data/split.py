"""Training and held-out samples of sets that come as one."""

import numpy as np

from sdelab.data.permutation import permutation


def stratified_mask(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Picks exactly `count` of the labelled samples, from every class its share to within one; `(n,)` bool."""
    order = permutation(seed, 0, len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    quota = np.arange(len(labels) + 1) * count // len(labels)  # rises by one at `count` evenly spaced places
    mask = np.zeros(len(labels), bool)
    mask[by_class] = np.diff(quota) == 1
    return mask


def held_out_mask(labels: np.ndarray | None, total: int, count: int) -> np.ndarray:
    """Picks `count` of `total` samples to hold out, `(total,)` bool: the same for ever, every class its share.

    Errors: a count that leaves nothing to train on.
    """
    if not 0 <= count < total:
        raise ValueError(f"held_out = {count} is not accepted for {total} samples; accepted: 0 to {total - 1}.")
    return stratified_mask(np.zeros(total, np.int32) if labels is None else labels, count)
