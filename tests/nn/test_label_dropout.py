"""Labels are dropped at their rate, by the sample's key, and a dropped label is the label "none"."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import DiT, EDM2UNet, as_function
from sdelab.nn.label_dropout import drop_labels

KEYS = jax.random.split(jax.random.key(0), 4000)
SMALL_EDM2 = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention_resolutions": (), "head_size": 8}
BUILDERS = {
    "dit": lambda **s: DiT(1, patch=2, width=16, depth=1, heads=2, **s),
    "edm2": lambda **s: EDM2UNet(1, 4, **SMALL_EDM2, **s),
}


def test_labels_are_dropped_at_the_rate_and_by_their_own_key():
    label = jnp.arange(4000) % 7
    dropped = np.asarray(drop_labels(label, 0.1, KEYS))
    gone = dropped == -1
    assert abs(gone.mean() - 0.1) < 4 * np.sqrt(0.09 / 4000)
    np.testing.assert_array_equal(dropped[~gone], label[~gone])
    np.testing.assert_array_equal(drop_labels(label[100:300], 0.1, KEYS[100:300]), dropped[100:300])
    np.testing.assert_array_equal(drop_labels(label, 0.1, None), label)
    np.testing.assert_array_equal(drop_labels(label, 0.0, KEYS), label)
    rows = drop_labels(jnp.ones((4000, 3)), 0.1, KEYS, none=0)  # whole rows, and the same
    np.testing.assert_array_equal(rows, np.repeat(~gone[:, None], 3, axis=1))
    np.testing.assert_array_equal(drop_labels(rows, 1.0, KEYS, none=0), 0.0)


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_a_dropped_label_is_no_label(kind):
    build = BUILDERS[kind]
    apply, shapes = as_function(nnx.eval_shape(lambda: build(classes=3, label_dropout=0.5, rngs=nnx.Rngs(params=0))))
    random = np.random.RandomState(0)
    params = jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape), s.dtype), shapes)
    x = jnp.asarray(random.normal(size=(8, 4, 4, 1)), jnp.float32)
    c, label, keys = jnp.zeros((8,)), jnp.arange(8) % 3, KEYS[:8]
    evaluate = jax.jit(apply)
    kept = drop_labels(label, 0.5, keys)
    assert 0 < np.sum(np.asarray(kept) == -1) < 8
    given = evaluate(params, x, c, label, keys)
    np.testing.assert_allclose(given, evaluate(params, x, c, kept), rtol=1e-5, atol=1e-5)
    changed = np.any(np.asarray(given != evaluate(params, x, c, label)), axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, np.asarray(kept) == -1)
