"""What a network may be told beside the noise level: a class, and how a training image was augmented."""

from collections.abc import Mapping
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sdelab.nn.layers import check_labels, label_rows

Label: TypeAlias = Int[Array, " batch"] | Float[Array, "batch classes"]
"""A class for each sample, negative for none; or for each a row of weights of the classes, zeros for none."""

Condition: TypeAlias = Label | Mapping[str, Array | None]
"""A label, or a mapping `{"label": ..., "augment": ...}`; what is absent or None is not given."""

_PARTS = ("label", "augment")


def read_condition(
    condition: Condition | None, classes: int, augmentations: int, batch: int
) -> tuple[Float[Array, "batch classes"], Float[Array, "batch augmentations"]]:
    """A row of weights of the classes, and one of augmentation labels, for each sample; zeros for what is not given.

    Errors: a part that the network does not have, or of another shape or dtype; an integer label >= `classes` (NaN
    under `jit`, where it cannot raise); an entry of another name.
    """
    parts = condition if isinstance(condition, Mapping) else {"label": condition}
    unknown = sorted(str(name) for name in parts if name not in _PARTS)
    if unknown:
        raise ValueError(f"condition has the entries {', '.join(unknown)}; accepted: {', '.join(_PARTS)}.")
    label, augment = parts.get("label"), parts.get("augment")
    if augment is None:
        augment = jnp.zeros((batch, augmentations), jnp.float32)
    else:
        _check_rows("augment", augment, "augmentations", augmentations)
    return class_rows(label, classes, batch), augment


def class_rows(label: Label | None, classes: int, batch: int) -> Float[Array, "batch classes"]:
    """One-hot for an integer label, zeros for a negative one and for None; rows are taken as they are."""
    if label is None:
        return jnp.zeros((batch, classes), jnp.float32)
    if label.ndim == 1 and jnp.issubdtype(label.dtype, jnp.integer):
        check_labels(label, classes)
        return label_rows(jnp.eye(classes, dtype=jnp.float32), label)
    _check_rows("label", label, "classes", classes)
    return label


def _check_rows(part: str, rows: Array, argument: str, width: int) -> None:
    """One row of floating-point numbers for each sample, as long as the network's `argument` says."""
    if width == 0:
        raise ValueError(f"the condition's {part} was given to a network without; accepted: None, or {argument} > 0.")
    if not jnp.issubdtype(rows.dtype, jnp.floating) or rows.ndim != 2 or rows.shape[1] != width:
        also = "integers of shape (batch,), or " if part == "label" else ""
        raise ValueError(
            f"the condition's {part} has shape {rows.shape} and dtype {rows.dtype}; accepted: {also}floating-point "
            f"rows of shape (batch, {width})."
        )
