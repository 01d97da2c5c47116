"""`NCSNpp` beyond the fixtures: other dimensions, dropout, labels, rematerialisation, presets and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import NCSNpp, as_function, presets

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,)}
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def build(image_channels=2, **settings):
    return NCSNpp(image_channels, **(SMALL | settings), rngs=nnx.Rngs(params=0))


def shapes_of(**settings):
    return as_function(nnx.eval_shape(lambda: build(**settings)))


def randomised(**settings):
    """Function and parameters without the zeros of initialisation: every path carries a signal."""
    apply, shapes = shapes_of(**settings)
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.RandomState(0)
    arrays = [(0.2 * random.normal(size=a.shape) + (a.ndim == 1)).astype(a.dtype) for a in leaves]
    return apply, jax.tree.unflatten(structure, arrays)


def inputs(*space, batch=4, channels=2):
    random = np.random.RandomState(1)
    x = jnp.asarray(random.normal(size=(batch, *space, channels)), jnp.float32)
    return x, jnp.asarray(random.uniform(0.5, 40.0, size=batch), jnp.float32)


def with_one_more_axis(kernel):
    """A kernel that acts in the plane of the old axes: zero beside its middle along the new one, the last."""
    if kernel.ndim <= 2:
        return kernel
    wider = np.zeros((*kernel.shape[:-2], 3, *kernel.shape[-2:]), kernel.dtype)
    wider[..., 1, :, :] = kernel
    return wider


@pytest.mark.parametrize(
    ("dims", "settings"),
    [
        (2, {"progressive_input": "input_skip", "progressive": "output_skip", "combine": "cat"}),
        (3, {"block": "ddpm", "progressive_input": "residual", "progressive": "residual"}),
    ],
)
def test_of_an_image_constant_along_one_axis_the_network_sees_a_slice(dims, settings):
    """With kernels that act across that axis, n dimensions have the numbers of n - 1."""
    narrow, params = randomised(dims=dims - 1, **settings)
    wide, _ = shapes_of(dims=dims, **settings)
    x, c_noise = inputs(*(8,) * (dims - 1))
    tiled = jnp.repeat(x[..., None, :], 4, axis=-2)
    expected = quick_jit(narrow)(params, x, c_noise)
    out = quick_jit(wide)(jax.tree.map(with_one_more_axis, params), tiled, c_noise)
    scale = float(jnp.max(jnp.abs(expected)))
    np.testing.assert_allclose(out, jnp.repeat(expected[..., None, :], 4, axis=-2), atol=2e-5 * scale)


def test_axes_are_treated_alike():
    """With its kernels turned, the network of a turned image is the turned network."""
    apply, params = randomised(dims=2, fir=(1, 2, 1, 4), progressive_input="residual", progressive="residual")
    x, c_noise = inputs(8, 4)
    turned = jax.tree.map(lambda k: k.swapaxes(0, 1) if k.ndim == 4 else k, params)
    run = quick_jit(apply)
    expected = np.asarray(run(params, x, c_noise))
    out = run(turned, x.swapaxes(1, 2), c_noise)
    np.testing.assert_allclose(out.swapaxes(1, 2), expected, atol=2e-5 * np.max(np.abs(expected)))


def test_a_sample_does_not_depend_on_its_batch_dropout_included():
    apply, params = randomised(classes=3, dropout=0.3, dims=1)
    x, c_noise = inputs(8)
    label, keys = jnp.asarray([0, 1, 2, -1]), jax.random.split(jax.random.key(2), 4)
    run = quick_jit(apply)
    together = run(params, x, c_noise, label, keys)
    order = jnp.asarray([2, 0, 3, 1])
    permuted = run(params, x[order], c_noise[order], label[order], keys[order])
    np.testing.assert_allclose(permuted, together[order], rtol=1e-4, atol=1e-4)
    alone = run(params, x[2:3], c_noise[2:3], label[2:3], keys[2:3])
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-4, atol=1e-4)
    changed = run(params, x, c_noise, label, keys.at[1].set(jax.random.key(99)))
    differs = np.any(np.asarray(changed != together).reshape(4, -1), axis=1)
    np.testing.assert_array_equal(differs, [False, True, False, False])
    relabelled = run(params, x, c_noise, label.at[0].set(1), keys)
    differs = np.any(np.asarray(relabelled != together).reshape(4, -1), axis=1)
    np.testing.assert_array_equal(differs, [True, False, False, False])


def test_every_block_drops_for_itself():
    """Blocks have numbers: two that drew the same mask would be one."""
    network = nnx.eval_shape(lambda: build(blocks=2))
    numbers = [module.number for _, module in nnx.iter_modules(network) if hasattr(module, "number")]
    assert sorted(numbers) == list(range(len(numbers)))
    assert len(numbers) == 4 + 1 + 2 + 6 + 1  # down, smaller, middle, up, larger


def test_rematerialisation_changes_no_number_and_holds_less():
    settings = {"dropout": 0.1, "dims": 1, "multipliers": (1,), "attention_resolutions": (8,)}
    apply, params = randomised(**settings)
    again, _ = shapes_of(**settings, rematerialise=True)
    x, c_noise = inputs(8)
    keys = jax.random.split(jax.random.key(0), 4)

    def gradient(function):
        return jax.grad(lambda p: jnp.sum(function(p, x, c_noise, None, keys) ** 2))

    kept, recomputed = (quick_jit(gradient(function))(params) for function in (apply, again))
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(kept))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * largest), kept, recomputed)
    names = [
        [equation.primitive.name for equation in jax.make_jaxpr(function)(params, x, c_noise, None, keys).jaxpr.eqns]
        for function in (apply, again)
    ]
    # residual blocks down, in the middle and up, and their attention
    assert [sum(name.startswith(("remat", "checkpoint")) for name in each) for each in names] == [0, 1 + 2 + 2 + 3]


def test_gradients_reach_every_parameter_but_the_frequencies():
    apply, params = randomised(dims=1, classes=3, embedding="fourier", scale_by_sigma=True)
    x, c_noise = inputs(8)
    gradient = quick_jit(jax.grad(lambda p: jnp.sum(apply(p, x, c_noise, jnp.arange(4) % 3) ** 2)))(params)
    silent = [jax.tree_util.keystr(path) for path, g in jax.tree.leaves_with_path(gradient) if not jnp.any(g != 0)]
    assert silent == ["['noise']['fourier']['frequencies']"]


def test_a_new_network_starts_near_zero_and_its_branches_as_nothing():
    apply, _ = shapes_of(dims=1)
    params = quick_jit(lambda: as_function(build(dims=1))[1])()
    x, c_noise = inputs(8)
    assert 0.0 < float(jnp.max(jnp.abs(quick_jit(apply)(params, x, c_noise)))) < 1e-3
    kernel = params["down"]["level0"]["blocks"]["block0"]["conv1"]["kernel"]
    np.testing.assert_allclose(np.var(kernel), 2.0 / (3 * 8 + 3 * 8), rtol=0.2)
    assert np.var(params["middle"]["attention"]["out"]["kernel"]) < 1e-10


def test_a_step_stands_for_the_sigma_at_its_whole_part():
    noise = nnx.eval_shape(lambda: build(num_scales=200)).noise
    sigma = noise.sigma(jnp.asarray([0.0, 1.9, 199.0, 200.0, -1.0]))
    np.testing.assert_allclose(sigma, [50.0, 50.0 * 5000 ** (-1 / 199), 0.01, np.nan, np.nan], rtol=1e-6)


def test_equal_networks_are_one_function():
    first, second, other = (shapes_of(**s)[0] for s in ({}, {}, {"activation": "elu"}))
    assert first == second
    assert hash(first) == hash(second)
    assert first != other


def test_the_preset_ddpm_has_its_published_size():
    network = nnx.eval_shape(lambda: NCSNpp(3, image_size=32, **presets.ddpm(), rngs=nnx.Rngs(params=0)))
    size = sum(leaf.size for leaf in jax.tree.leaves(as_function(network)[1]))
    # Ho et al.'s 35.746 307 million have 3 layers of attention on the way up, where score_sde has 1
    assert size == 35_746_307 - 2 * (4 * (256 * 256 + 256) + 2 * 256)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"block": "bigan"}, r"unknown block 'bigan'\. Did you mean 'biggan'\?"),
        ({"embedding": "fourrier"}, "unknown embedding 'fourrier'"),
        ({"progressive": "input_skip"}, "unknown progressive 'input_skip'"),
        ({"progressive_input": "output_skip"}, "unknown progressive_input 'output_skip'"),
        ({"combine": "concat"}, r"unknown combine 'concat'.* Known: cat, sum"),
        ({"activation": "gelu"}, "unknown activation 'gelu'"),
        ({"attention_resolutions": (16,)}, r"attention_resolutions = \(16,\) .* sides \[8, 4\]"),
        ({"fir": (1,)}, r"fir = \(1,\) is not accepted"),
        ({"dims": 4}, "dims = 4 is not accepted"),
        ({"dropout": 1.0}, r"dropout = 1\.0"),
        ({"multipliers": ()}, "at least one resolution"),
        ({"groups": 3}, "groups must divide the 8 channels"),
        ({"channels": 2, "groups": None}, "groups = 0"),
        ({"classes": 3, "noise_conditional": False}, "classes = 3 is not accepted"),
        ({"sigma_min": 60.0}, r"sigma_min = 60\.0 must be less than sigma_max"),
        ({"init_scale": -1.0}, r"init_scale = -1\.0"),
    ],
)
def test_what_does_not_fit_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        nnx.eval_shape(lambda: build(**settings))


def test_images_that_do_not_fit_are_refused():
    apply, params = shapes_of()
    for shape in ((1, 7, 8, 2), (1, 8, 8, 3), (1, 8, 2)):
        with pytest.raises(ValueError, match=r"takes \(batch, 2 sides, 2 channels\), sides that are multiples of 2"):
            jax.eval_shape(apply, params, jnp.zeros(shape), jnp.zeros((1,)))
    with pytest.raises(ValueError, match="network without labels"):
        jax.eval_shape(apply, params, jnp.zeros((1, 8, 8, 2)), jnp.zeros((1,)), jnp.zeros((1,), jnp.int32))
