"""Section `augment` of a configuration: what is done to images before the loss, inside the step."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sdelab.data.augment import AbstractAugmentation, EDMAugmentation, HorizontalFlip, NoAugmentation
from sdelab.train.step import Batch, LossFn

AUGMENTATIONS = {"edm": EDMAugmentation, "flip": HorizontalFlip, "none": NoAugmentation}

_STREAM = 0x617567
"""Folded into a sample's key: the loss splits that key itself, into its first few children."""


def check_augmentation(
    augmentation: AbstractAugmentation, model: Mapping[str, Any], event_shape: tuple[int, ...]
) -> None:
    """Errors: an augmentation of what is no image; a network that is told another number of labels."""
    if not isinstance(augmentation, NoAugmentation) and len(event_shape) != 3:
        raise ValueError(
            f"config.augment: {type(augmentation).__name__} is for images; the data have events of shape {event_shape}, "
            "for which 'none' is accepted."
        )
    told = model.get("augmentations", 0)
    if told != augmentation.labels:
        raise ValueError(
            f"config.model: augmentations = {told} is not accepted; {type(augmentation).__name__} has "
            f"{augmentation.labels} labels, and the network must be told as many."
        )


def with_augmentation(loss_fn: LossFn, augmentation: AbstractAugmentation, *, labelled: bool) -> LossFn:
    """The loss of augmented images. With labels of the augmentation, `batch["label"]` is what the network is told:

    `{"label": (batch,) or None, "augment": (batch, labels)}`, with the data's own label if `labelled`.
    """

    def augmented_loss(params: Any, keys: Any, batch: Batch) -> Any:
        keys_augment = jax.vmap(lambda key: jax.random.fold_in(key, _STREAM))(keys)
        x, labels = augmentation(keys_augment, jnp.asarray(batch["x"]))
        if not augmentation.labels:
            return loss_fn(params, keys, {**batch, "x": x})
        told = {"label": batch["label"] if labelled else None, "augment": labels}
        return loss_fn(params, keys, {**batch, "x": x, "label": told})

    return augmented_loss
