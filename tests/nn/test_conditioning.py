"""Labels and augmentations in every form that is accepted, and the ones that are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.nn.conditioning import read_condition

NOTHING = jnp.zeros((3, 2))
ROWS = jnp.asarray([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
LABEL = jnp.asarray([3, -1, 0])
AUGMENT = jnp.asarray([[0.5, -1.0], [0.0, 0.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("condition", "rows", "augment"),
    [
        (None, jnp.zeros((3, 4)), NOTHING),
        (LABEL, ROWS, NOTHING),
        (ROWS, ROWS, NOTHING),
        ({"label": LABEL}, ROWS, NOTHING),
        ({"label": None, "augment": AUGMENT}, jnp.zeros((3, 4)), AUGMENT),
        ({"label": ROWS, "augment": AUGMENT}, ROWS, AUGMENT),
    ],
)
def test_every_form_comes_to_two_rows_a_sample(condition, rows, augment):
    for read in (read_condition, jax.jit(read_condition, static_argnums=(1, 2, 3))):
        found_rows, found_augment = read(condition, 4, 2, 3)
        np.testing.assert_array_equal(found_rows, rows)
        np.testing.assert_array_equal(found_augment, augment)


def test_an_unknown_label_cannot_pass_unseen():
    with pytest.raises(ValueError, match=r"accepted: labels less than 3"):
        read_condition(LABEL, 3, 0, 3)
    with pytest.raises(ValueError, match=r"accepted: labels less than 3"):
        jax.eval_shape(lambda: read_condition(LABEL, 3, 0, 3))  # known while tracing
    rows, _ = jax.jit(read_condition, static_argnums=(1, 2, 3))(LABEL, 3, 0, 3)
    np.testing.assert_array_equal(np.isnan(rows).all(axis=1), [True, False, False])
    np.testing.assert_array_equal(rows[1:], ROWS[1:, :3])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (ROWS, r"label has shape \(3, 4\) and dtype float32; .* \(batch, 3\)"),
        ({"augment": ROWS}, r"augment has shape \(3, 4\) .* \(batch, 2\)"),
        ({"class": LABEL}, "entries class; accepted: label, augment"),
    ],
)
def test_what_does_not_fit_is_refused(condition, message, unhooked):
    with pytest.raises(ValueError, match=message):
        read_condition(condition, 3, 2, 3)


@pytest.mark.parametrize("condition", [LABEL, ROWS, {"augment": AUGMENT}])
def test_a_network_that_cannot_be_told_refuses(condition, unhooked):
    with pytest.raises(ValueError, match="network without"):
        read_condition(condition, 0, 0, 3)
