"""SongUNet and ADM beyond the fixtures: conditions, dropout, dimensions, rematerialisation, initial values, errors."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import ADM, LeadingChannels, SongUNet, as_function, presets
from sdelab.nn.attention import heads_of
from sdelab.nn.label_dropout import drop_labels
from tests.nn.edm_cases import QUICK

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,)}
NETWORKS = {
    "adm": functools.partial(ADM, 2, head_size=8, **SMALL),
    "song": functools.partial(SongUNet, 2, embedding="fourier", encoder="residual", fir=(1, 3, 3, 1), **SMALL),
}


def build(name, **settings):
    return NETWORKS[name](**SMALL | settings, rngs=nnx.Rngs(params=0))


def function(name, **settings):
    """The network's function, and shapes in place of parameters."""
    return as_function(nnx.eval_shape(lambda: build(name, **settings)))


def drawn(shapes, seed=7):
    """Parameters without zeros: every path carries a signal."""
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.RandomState(seed)
    values = [
        random.normal(0.5, 0.1, leaf.shape) if len(leaf.shape) == 1 else random.normal(0.0, 1.0, leaf.shape)
        for leaf in leaves
    ]
    scaled = [value / max(1.0, np.prod(value.shape[:-1])) ** 0.5 for value in values]
    return jax.tree.unflatten(structure, [jnp.asarray(value, jnp.float32) for value in scaled])


def compiled(function):
    return jax.jit(function, compiler_options=QUICK)


@pytest.fixture(params=list(NETWORKS))
def name(request):
    return request.param


def inputs(batch=4, space=(8, 8)):
    x = jax.random.normal(jax.random.key(1), (batch, *space, 2))
    return x, jnp.linspace(-1.0, 1.0, batch), jax.random.split(jax.random.key(2), batch)


def changes(first, second):
    """For each sample the largest difference."""
    return np.max(np.abs(np.asarray(first - second)).reshape(first.shape[0], -1), axis=1)


def test_what_is_told_and_drawn_belongs_to_its_sample(name):
    """Batch, labels, augmentation, dropout, and labels that are dropped: one network, called with all of them."""
    apply, shapes = function(name, classes=3, augmentations=2, dropout=0.3, label_dropout=0.5)
    network, params = compiled(apply), drawn(shapes)
    x, c, keys = inputs()
    told = {"label": jnp.asarray([2, 1, 0, 1]), "augment": jnp.zeros((4, 2))}
    out = network(params, x, c, told, keys)
    order = jnp.asarray([3, 0, 2, 1])
    permuted = network(params, x[order], c[order], jax.tree.map(lambda a: a[order], told), keys[order])
    np.testing.assert_allclose(permuted, out[order], rtol=1e-5, atol=1e-5)
    dropped = np.asarray(drop_labels(jnp.zeros((4,), jnp.int32), 0.5, keys)) == -1
    assert 0 < dropped.sum() < 4
    untold = network(params, x, c, told | {"label": jnp.full((4,), -1)}, keys)
    np.testing.assert_array_equal(changes(untold, out) == 0.0, dropped)
    augmented = network(params, x, c, told | {"augment": jnp.zeros((4, 2)).at[1, 0].set(1.0)}, keys)
    np.testing.assert_array_equal(changes(augmented, out) > 0.0, np.arange(4) == 1)
    redrawn = network(params, x, c, told, keys.at[2].set(jax.random.key(99)))
    np.testing.assert_array_equal(changes(redrawn, out) > 0.0, np.arange(4) == 2)


def test_without_keys_nothing_is_dropped(name):
    apply, shapes = function(name, classes=3, dropout=0.3, label_dropout=0.5)
    plain, _ = function(name, classes=3)
    x, c, keys = inputs(2)
    label, params = jnp.asarray([0, 2]), drawn(shapes)
    np.testing.assert_array_equal(
        compiled(apply)(params, x, c, label), compiled(plain)(params, x, c, jax.nn.one_hot(label, 3), keys)
    )


def test_rematerialised_blocks_give_the_same_numbers(name):
    x, c, keys = inputs(2, (4, 4))
    results = []
    for rematerialise in (False, True):
        apply, shapes = function(
            name, multipliers=(1,), attention_resolutions=(), dropout=0.3, rematerialise=rematerialise
        )

        def loss(params, apply=apply):
            return jnp.sum(apply(params, x, c, None, keys) ** 2)

        derivative = jax.grad(loss)
        assert ("remat" in str(jax.make_jaxpr(derivative)(shapes))) == rematerialise
        results.append(compiled(derivative)(drawn(shapes)))
    for plain, again in zip(*(jax.tree.leaves(result) for result in results), strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-4 * float(jnp.max(jnp.abs(plain))))


@pytest.mark.parametrize("dims", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_dimension_more_changes_nothing_where_nothing_varies_along_it(name, dims):
    """With kernels whose other columns are zero, and averages for the filter, which keep what is constant."""
    settings = {"fir": None} if name == "song" else {}
    apply, shapes = function(name, dims=dims, **settings)
    larger, wanted = function(name, dims=dims + 1, **settings)
    params = drawn(shapes)
    lifted = jax.tree.map(lambda a, like: _lift(a, like.shape), params, wanted)
    x, c, _ = inputs(1, (8,) * dims)
    out = compiled(apply)(params, x, c)
    repeated = compiled(larger)(lifted, jnp.repeat(x[..., None, :], 4, axis=-2), c)
    np.testing.assert_allclose(repeated, jnp.repeat(out[..., None, :], 4, axis=-2), rtol=1e-4, atol=1e-4)


def _lift(kernel, shape):
    if kernel.shape == shape:
        return kernel
    return jnp.zeros(shape, kernel.dtype).at[..., 1, :, :].set(kernel)


def test_an_oblong_image_and_its_mirror_image(name):
    """An oblong image is taken, and its mirror image, through mirrored kernels, gives the mirrored output."""
    apply, shapes = function(name, **{"fir": None} if name == "song" else {})
    network, params = compiled(apply), drawn(shapes)
    x, c, _ = inputs(1, (4, 12))
    mirrored = jax.tree.map(lambda a: a[:, ::-1] if a.ndim == 4 else a, params)
    flipped = network(mirrored, x[:, :, ::-1], c)
    np.testing.assert_allclose(flipped, network(params, x, c)[:, :, ::-1], rtol=1e-4, atol=1e-4)


def test_initial_values_are_the_published_ones():
    """Bounds and spreads of EDM's initialisers, for kernels of some thousand numbers."""
    _, song = as_function(
        SongUNet(
            2,
            image_size=8,
            channels=64,
            multipliers=(1,),
            blocks=1,
            attention_resolutions=(8,),
            classes=64,
            rngs=nnx.Rngs(params=0),
        )
    )
    block = song["backbone"]["encoder"]["level0_block0"]
    uniform = {  # sqrt(6 / (fan in + fan out)), times the published weight
        (6.0 / (2 * 64 * 9)) ** 0.5: block["conv0"]["kernel"],
        1e-5 * (6.0 / (2 * 64 * 9)) ** 0.5: block["conv1"]["kernel"],
        (0.2 * 6.0 / (4 * 64)) ** 0.5: block["attention"]["query_key_value"]["kernel"],
        (6.0 / (2 * 64)) ** 0.5: song["embedding"]["label"]["kernel"],
    }
    _, adm = as_function(
        ADM(
            2,
            image_size=8,
            channels=64,
            multipliers=(1,),
            blocks=1,
            attention_resolutions=(8,),
            classes=64,
            augmentations=3,
            rngs=nnx.Rngs(params=0),
        )
    )
    block = adm["backbone"]["encoder"]["level0_block0"]
    uniform |= {
        (64 * 9) ** -0.5: block["conv0"]["kernel"],
        64**-0.5: block["attention"]["query_key_value"]["kernel"],
        256**-0.5: adm["embedding"]["second"]["kernel"],
    }
    for bound, kernel in uniform.items():
        assert 0.99 * bound < float(jnp.max(jnp.abs(kernel))) <= bound
        np.testing.assert_allclose(jnp.std(kernel), bound / 3**0.5, rtol=0.05)
    np.testing.assert_allclose(jnp.std(adm["embedding"]["label"]["kernel"]), 1.0, rtol=0.03)
    zeros = (block["conv1"], block["attention"]["out"], adm["last"], adm["embedding"]["augment"])
    assert not any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(zeros))
    assert not any(
        jnp.any(module["bias"] != 0)
        for module in song["backbone"]["encoder"]["level0_block0"].values()
        if "bias" in module
    )
    assert 0.9 * 256**-0.5 < float(jnp.max(jnp.abs(block["modulation"]["bias"]))) <= 256**-0.5


@pytest.mark.parametrize(
    ("size", "millions", "heads"),
    [(64, 296, (6, 9, 12)), (128, 422, (4, 4, 4)), (256, 554, (8, 16, 16)), (512, 559, (8, 16, 16))],
)
def test_networks_of_dhariwal_and_nichol_have_the_published_sizes(size, millions, heads):
    """Millions of parameters: appendix I of https://arxiv.org/abs/2105.05233. Heads at 32, 16 and 8 pixels: four, or of 64 channels."""
    arguments = getattr(presets, f"adm_{size}")()
    network = nnx.eval_shape(lambda: ADM(3, image_size=size, **arguments, rngs=nnx.Rngs(params=0)))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(as_function(network)[1])) / 1e6) == millions
    found = {}
    for name, block in network.backbone.encoder.items():
        if block.heads:
            found.setdefault(size >> int(re.findall(r"level(\d+)_", name)[0]), set()).add(block.heads)
    assert found == {side: {count} for side, count in zip((32, 16, 8), heads, strict=True)}


def test_heads_are_as_many_as_are_said_or_as_there_is_room_for():
    assert [heads_of(64, None, channels) for channels in (32, 64, 100, 192)] == [0, 1, 1, 3]
    assert heads_of(64, 4, 256) == 4
    with pytest.raises(ValueError, match="heads = 3 is not accepted; its 3 heads must divide the 16 channels"):
        ADM(1, image_size=8, channels=16, multipliers=(1,), attention_resolutions=(8,), heads=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"multipliers = 0\.3 is not accepted; .* times the 16 channels an integer"):
        ADM(1, image_size=8, channels=16, multipliers=(0.3,), attention_resolutions=(), rngs=nnx.Rngs(0))


def test_leading_channels_are_what_the_network_returns_first():
    def network():
        return build("adm", out_channels=4)

    apply, shapes = as_function(nnx.eval_shape(network))
    half, wrapped = as_function(nnx.eval_shape(lambda: LeadingChannels(network(), 2)))
    assert jax.tree.structure(wrapped) == jax.tree.structure({"network": shapes})
    x, c, _ = inputs(1)
    params = drawn(shapes)
    both = compiled(lambda p: (apply(p, x, c), half({"network": p}, x, c)))(params)
    np.testing.assert_array_equal(both[1], both[0][..., :2])
    with pytest.raises(ValueError, match=r"channels = 5 .* returns 4 channels"):
        nnx.eval_shape(lambda: LeadingChannels(network(), 5)(x, c))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 9}, "image_size = 9 .* multiple of 2"),
        ({"attention_resolutions": (5,)}, r"attention_resolutions = \(5,\) .* resolutions 8, 4"),
        ({"dims": 4}, "dims = 4"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"label_dropout": 1.5}, "label_dropout = 1.5"),
        ({"multipliers": ()}, r"multipliers = \(\)"),
        ({"blocks": 0}, "blocks = 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: build(name, **settings))


def test_names_that_are_unknown_are_refused():
    for argument in ("embedding", "encoder", "decoder"):
        with pytest.raises(ValueError, match=f"unknown {argument} 'standart'"):
            nnx.eval_shape(lambda argument=argument: build("song", **{argument: "standart"}))


def test_images_that_do_not_fit_are_refused(name):
    for shape in ((1, 8, 8, 3), (1, 7, 8, 2), (1, 8, 2)):
        with pytest.raises(ValueError, match=r"\(batch, height, width, 2\) whose sides are multiples of 2"):
            nnx.eval_shape(lambda shape=shape: build(name)(jnp.zeros(shape), jnp.zeros((1,))))
