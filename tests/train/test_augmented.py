"""Augmentation in the step: keys of its own, and labels where the network reads them."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.data import Batches, load_digits
from sdelab.data.augment import EDMAugmentation, HorizontalFlip, NoAugmentation
from sdelab.train import build
from sdelab.train.augmented import check_augmentation, with_augmentation
from sdelab.train.step import example_keys

ROOT = Path(__file__).parents[2]
BATCH = Batches(load_digits(), 16, seed=2).batch(3)
KEYS = example_keys(jax.random.key(7), 3, BATCH["index"])


def digits(**augment):
    config = runpy.run_path(str(ROOT / "configs" / "digits" / "vp.py"))["get_config"]().to_dict()
    return {**config, "augment": augment}


def seen(augmentation, labelled=True, keys=KEYS, batch=BATCH):
    """What the loss behind an augmentation is called with."""
    return with_augmentation(lambda params, keys, batch: (keys, batch), augmentation, labelled=labelled)(
        None, keys, batch
    )


def test_nothing_is_changed_without_augmentation():
    keys, batch = seen(NoAugmentation())
    assert keys is KEYS
    for name, array in BATCH.items():
        np.testing.assert_array_equal(batch[name], array)


def test_images_are_flipped_before_the_loss_and_its_keys_are_its_own():
    keys, batch = seen(HorizontalFlip())
    assert keys is KEYS
    flipped = np.any(batch["x"] != BATCH["x"], axis=(1, 2, 3))
    assert 0 < flipped.sum() < 16
    np.testing.assert_array_equal(batch["x"][flipped], BATCH["x"][flipped][:, :, ::-1])
    np.testing.assert_array_equal(batch["label"], BATCH["label"])


@pytest.mark.parametrize("labelled", [True, False])
def test_the_network_is_told_what_was_done(labelled):
    augmentation = EDMAugmentation(0.5)
    _, batch = seen(augmentation, labelled)
    told = batch["label"]
    assert (told["label"] is BATCH["label"]) if labelled else (told["label"] is None)
    assert told["augment"].shape == (16, 9)
    alone = np.all(told["augment"][:, 1:] == 0, axis=1)  # flipped or not, and nothing else
    expected = np.where(told["augment"][:, 0, None, None, None] == 1, BATCH["x"][:, :, ::-1], BATCH["x"])
    np.testing.assert_array_equal(batch["x"][alone], expected[alone])
    assert not alone.all()


@pytest.mark.as_users
def test_a_sample_is_augmented_alike_in_any_part_of_its_batch():
    _, whole = seen(HorizontalFlip())
    for rows in (np.arange(8, 16), np.array([3, 12])):
        _, part = seen(HorizontalFlip(), keys=KEYS[rows], batch={name: array[rows] for name, array in BATCH.items()})
        np.testing.assert_array_equal(part["x"], whole["x"][rows])


def test_no_key_serves_two_draws():
    """The loss splits a sample's key; the augmentation has a key that is none of those."""
    received = []

    class Spy(NoAugmentation):
        def __call__(self, keys, x):
            received.append(keys)
            return super().__call__(keys, x)

    seen(Spy())
    children = jax.vmap(lambda key: jax.random.split(key, 64))(KEYS)
    taken = {bytes(np.asarray(data)) for data in jax.random.key_data(jnp.concatenate([children.ravel(), KEYS]))}
    ours = {bytes(np.asarray(data)) for data in jax.random.key_data(received[0])}
    assert len(ours) == 16
    assert not ours & taken


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"augmentations = 0 is not accepted; EDMAugmentation has 9 labels"):
        build(digits(name="edm"))
    with pytest.raises(ValueError, match=r"augmentations = 9 is not accepted; HorizontalFlip has 0 labels"):
        check_augmentation(HorizontalFlip(), {"augmentations": 9}, (8, 8, 1))
    check_augmentation(EDMAugmentation(), {"augmentations": 9}, (8, 8, 1))
    with pytest.raises(ValueError, match=r"HorizontalFlip is for images; the data have events of shape \(2,\)"):
        check_augmentation(HorizontalFlip(), {}, (2,))
    with pytest.raises(ValueError, match=r"unknown augment 'flp'. Did you mean 'flip'"):
        build(digits(name="flp"))
    with pytest.raises(ValueError, match=r"config\.augment: probability = 2\.0"):
        build(digits(name="edm", probability=2.0))
