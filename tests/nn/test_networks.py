"""The networks: what a sample gets does not depend on its batch, and labels, keys and dtypes do what they say."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab import VP
from sdelab.nn import MLP, DiT, EDM2UNet, UNet, as_function
from sdelab.score import EDMPreconditioner, NetworkScore

SHAPES = {"mlp": (5,), "unet": (8, 8, 1), "dit": (4, 6, 1), "edm2": (4, 4, 1)}
KEPT = {"frequencies", "phases"}  # parameters that are restored and not trained


def build(kind, **settings):
    rngs = nnx.Rngs(params=0)
    if kind == "mlp":
        return MLP(5, width=32, depth=2, rngs=rngs, **settings)
    if kind == "dit":
        return DiT(1, patch=2, width=32, depth=2, heads=2, rngs=rngs, **settings)
    if kind == "edm2":
        small = {"channels": 16, "multipliers": (1,), "blocks": 1, "attention_resolutions": (4,), "head_size": 16}
        return EDM2UNet(1, 4, **small, rngs=rngs, **settings)
    return UNet(1, channels=16, multipliers=(1, 2), rngs=rngs, **settings)


def shapes_of(kind, **settings):
    """The network's function, and shapes in place of parameters."""
    return as_function(nnx.eval_shape(lambda: build(kind, **settings)))


@functools.cache
def randomised(kind, **settings):
    """Function and parameters without the zeros of initialisation: every path carries a signal.

    Drawn by NumPy: JAX's draw of a new shape takes longer to compile than some of the networks.
    """
    apply, shapes = shapes_of(kind, **settings)
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.RandomState(7)
    drawn = [random.normal(0.5, 0.1, a.shape) if a.ndim == 1 else random.normal(0.0, 1.0, a.shape) for a in leaves]
    scaled = [value / max(1.0, np.prod(value.shape[:-1])) ** 0.5 for value in drawn]
    return jax.jit(apply), jax.tree.unflatten(structure, [jnp.asarray(value, jnp.float32) for value in scaled])


def inputs(kind, batch=6):
    random = np.random.RandomState(1)
    return (
        jnp.asarray(random.normal(size=(batch, *SHAPES[kind])), jnp.float32),
        jnp.asarray(random.uniform(-2.0, 1.5, batch), jnp.float32),
        jnp.arange(batch) % 3,
        jax.random.split(jax.random.key(2), batch),
    )


@pytest.fixture(params=list(SHAPES))
def kind(request):
    return request.param


def test_a_permuted_batch_is_permuted_in_the_output(kind):
    apply, params = randomised(kind, classes=3, dropout=0.3)
    x, c, label, keys = inputs(kind)
    order = jnp.asarray([3, 0, 5, 1, 4, 2])
    together = apply(params, x, c, label, keys)
    permuted = apply(params, x[order], c[order], label[order], keys[order])
    np.testing.assert_allclose(permuted, together[order], rtol=1e-5, atol=1e-5)


def test_a_sample_alone_is_the_sample_in_the_batch_dropout_included(kind):
    apply, params = randomised(kind, classes=3, dropout=0.3)
    x, c, label, keys = inputs(kind)
    together = apply(params, x, c, label, keys)
    for i in (0, 4):
        one = slice(i, i + 1)
        alone = apply(params, x[one], c[one], label[one], keys[one])
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-5)


def test_dropout_is_drawn_from_the_keys_and_without_keys_is_off(kind):
    x, c, label, keys = inputs(kind)
    apply, params = randomised(kind, classes=3, dropout=0.3)
    plain, _ = randomised(kind, classes=3)
    np.testing.assert_array_equal(apply(params, x, c, label), plain(params, x, c, label))
    np.testing.assert_array_equal(plain(params, x, c, label, keys), plain(params, x, c, label))
    drawn = apply(params, x, c, label, keys)
    np.testing.assert_array_equal(apply(params, x, c, label, keys), drawn)
    changed = apply(params, x, c, label, keys.at[1].set(jax.random.key(99)))
    differs = np.any(np.asarray(changed != drawn).reshape(len(x), -1), axis=1)
    np.testing.assert_array_equal(differs, np.arange(len(x)) == 1)


def test_label_and_noise_level_change_the_output_of_their_own_sample(kind):
    apply, params = randomised(kind, classes=3)
    x, c, label, _ = inputs(kind)
    before = apply(params, x, c, label)
    for after in (apply(params, x, c, label.at[2].set(0)), apply(params, x, c.at[2].add(0.2), label)):
        change = np.max(np.abs(np.asarray(after - before)).reshape(len(x), -1), axis=1)
        assert change[2] > 1e-3
        assert np.all(np.delete(change, 2) <= 1e-5)


@pytest.mark.as_users
def test_a_negative_label_is_no_label(kind):
    apply, params = randomised(kind, classes=3)
    x, c, _, _ = inputs(kind)
    np.testing.assert_array_equal(apply(params, x, c, jnp.full((len(x),), -1)), apply(params, x, c))


def test_a_new_network_returns_zero_so_that_the_denoiser_is_the_skip(kind):
    apply, _ = shapes_of(kind, classes=3)
    params = jax.jit(lambda: as_function(build(kind, classes=3))[1])()
    x, _, label, _ = inputs(kind)
    score = NetworkScore(VP(), EDMPreconditioner(0.5), jax.jit(apply), params)
    alpha, sigma = VP().alpha(0.4), VP().sigma(0.4)
    skip = 0.25 * alpha / (0.25 * alpha**2 + sigma**2)
    np.testing.assert_allclose(score.denoise(x, 0.4, label), skip * x, rtol=1e-6)


def test_gradients_reach_every_parameter(kind):
    """Of the randomised network: a parameter that nothing depends on is a mistake in the wiring."""
    apply, params = randomised(kind, classes=3)
    x, c, label, _ = inputs(kind)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(apply(p, x, c, label) ** 2)))(params)
    silent = {path for path, g in jax.tree.leaves_with_path(gradient) if not np.any(np.asarray(g) != 0)}
    assert {jax.tree_util.keystr(path) for path in silent if path[-1].key not in KEPT} == set()


def test_bfloat16_arithmetic_with_float32_parameters_and_output(kind):
    single, params = randomised(kind, classes=3)
    half, initial = shapes_of(kind, classes=3, dtype=jnp.bfloat16)
    x, c, label, _ = inputs(kind)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(initial))
    # flax's norm and JAX's attention promote bfloat16 to float32 implicitly, on purpose
    with jax.numpy_dtype_promotion("standard"):
        out = jax.jit(half)(params, x, c, label)
        jaxpr = jax.make_jaxpr(half)(params, x, c, label)
    assert out.dtype == jnp.float32
    reference = single(params, x, c, label)
    assert 0 < float(jnp.linalg.norm(out - reference)) < 0.05 * float(jnp.linalg.norm(reference))
    of = collections.Counter(
        (_of_vectors(e), *sorted({str(v.aval.dtype) for v in e.invars}))
        for e in _equations(jaxpr.jaxpr)
        if e.primitive.name in ("dot_general", "conv_general_dilated")
    )
    # noise level and label are embedded, and modulate, in float32: two layers, and one for each of the two blocks of `MLP`
    vectors = {"mlp": {(True, "float32"): 4, (True, "bfloat16"): 6}}.get(kind, {(True, "float32"): of[True, "float32"]})
    assert {key: count for key, count in of.items() if key[0]} == vectors
    assert kind == "mlp" or {key for key in of if not key[0]} == {(False, "bfloat16")}


@pytest.mark.parametrize("kind", ["dit", "edm2"])
def test_gradients_of_bfloat16_networks_have_products_in_bfloat16(kind):
    """The scores of attention are float32, and so are their cotangents until JAX multiplies them, in bfloat16."""
    apply, params = shapes_of(kind, classes=3, dtype=jnp.bfloat16)
    x, c, label, _ = inputs(kind)

    def loss(params, x):
        return jnp.sum(apply(params, x, c, label) ** 2)

    with jax.numpy_dtype_promotion("standard"):
        jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, x)
    products = [e for e in _equations(jaxpr.jaxpr) if e.primitive.name in ("dot_general", "conv_general_dilated")]
    products = [e for e in products if not _of_vectors(e)]  # those are float32
    assert len(products) > 40
    single = [e for e in products if any(v.aval.dtype == jnp.float32 for v in e.invars)]
    assert {str(e.params["precision"]) for e in single} == {
        "BF16_BF16_F32"
    }  # cotangents of scores, cast in the product


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dit", "edm2"])
def test_recomputed_blocks_have_the_same_output_and_gradient(kind):
    plain, params = randomised(kind, classes=3, dropout=0.3)
    again, _ = randomised(kind, classes=3, dropout=0.3, rematerialise=True)
    x, c, label, keys = inputs(kind)

    def loss(apply, params):
        return jnp.mean(apply(params, x, c, label, keys) ** 2)

    assert "remat" in str(jax.make_jaxpr(functools.partial(loss, again))(params))
    assert "remat" not in str(jax.make_jaxpr(functools.partial(loss, plain))(params))
    pairs = zip(
        *(jax.tree.leaves(jax.jit(jax.value_and_grad(functools.partial(loss, f)))(params)) for f in (plain, again)),
        strict=True,
    )
    for expected, actual in pairs:
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * float(np.max(np.abs(expected))))


def _of_vectors(product):
    """Of one vector a sample, or of points."""
    return all(v.aval.ndim == 2 for v in product.invars)


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_a_label_may_be_a_constant_of_the_program(kind):
    apply, params = shapes_of(kind, classes=3)
    x, c, label, _ = inputs(kind)
    out = jax.eval_shape(lambda params: apply(params, x, c, label), params)
    assert out.shape == x.shape
    unknown = label + 1
    with pytest.raises(ValueError, match="labels less than 3"):
        jax.eval_shape(lambda params: apply(params, x, c, unknown), params)


def test_half_precision_parameters(kind):
    _, params = shapes_of(kind, classes=3, param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


def test_what_does_not_fit_is_refused():
    rngs = nnx.Rngs(params=0)
    unet, mlp = nnx.eval_shape(lambda: build("unet")), build("mlp")
    with pytest.raises(ValueError, match="multiples of 2"):
        unet(jnp.zeros((1, 7, 8, 1)), jnp.zeros((1,)))
    with pytest.raises(ValueError, match=r"points of shape \(batch, 5\)"):
        mlp(jnp.zeros((1, 4)), jnp.zeros((1,)))
    with pytest.raises(ValueError, match=r"head_size = 5 .* must divide the 64 channels"):
        UNet(1, channels=32, multipliers=(1, 2), head_size=5, rngs=rngs)
    with pytest.raises(ValueError, match=r"dropout = 1\.0"):
        MLP(2, dropout=1.0, rngs=rngs)
    with pytest.raises(ValueError, match="depth = 0"):
        MLP(2, depth=0, rngs=rngs)
    with pytest.raises(ValueError, match="multipliers = 0"):
        UNet(1, multipliers=(1, 0), rngs=rngs)
    with pytest.raises(ValueError, match="network without labels"):
        mlp(jnp.zeros((1, 5)), jnp.zeros((1,)), jnp.zeros((1,), jnp.int32))
    with pytest.raises(ValueError, match="labels less than 3"):
        build("mlp", classes=3)(jnp.zeros((1, 5)), jnp.zeros((1,)), jnp.full((1,), 3))
