"""What a network in bfloat16 computes in: no convolution in float32, forwards or backwards, and float32 out.

What is made of noise level and label is float32, and rounded where it meets the image: one vector a sample, no pixels.
"""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import ADM, DiT, EDM2UNet, NCSNpp, SongUNet, UNet, as_function
from sdelab.nn.presets import FIR

SMALL = {"image_size": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,)}

NETWORKS = {
    # name: (dtype -> network, shape of an image)
    "ddpm": (lambda dtype: NCSNpp(3, **SMALL, block="ddpm", dtype=dtype, rngs=nnx.Rngs(params=0)), (8, 8, 3)),
    "ncsnpp residual": (
        lambda dtype: NCSNpp(
            3,
            **SMALL,
            fir=FIR,
            progressive_input="residual",
            progressive="residual",
            embedding="fourier",
            scale_by_sigma=True,
            dtype=dtype,
            rngs=nnx.Rngs(params=0),
        ),
        (8, 8, 3),
    ),
    "ncsnpp skip": (
        lambda dtype: NCSNpp(
            1,
            **SMALL,
            dims=1,
            fir=FIR,
            progressive_input="input_skip",
            progressive="output_skip",
            dropout=0.1,
            rematerialise=True,
            dtype=dtype,
            rngs=nnx.Rngs(params=0),
        ),
        (8, 1),
    ),
    "song": (
        lambda dtype: SongUNet(
            3,
            **SMALL,
            embedding="fourier",
            encoder="residual",
            decoder="skip",
            fir=FIR,
            classes=2,
            augmentations=2,
            dropout=0.1,
            dtype=dtype,
            rngs=nnx.Rngs(params=0),
        ),
        (8, 8, 3),
    ),
    "song skip": (
        lambda dtype: SongUNet(3, **SMALL, encoder="skip", dims=3, dtype=dtype, rngs=nnx.Rngs(params=0)),
        (8, 8, 8, 3),
    ),
    "adm": (
        lambda dtype: ADM(
            3, **SMALL, head_size=8, classes=2, rematerialise=True, dropout=0.1, dtype=dtype, rngs=nnx.Rngs(params=0)
        ),
        (8, 8, 3),
    ),
    "unet": (lambda dtype: UNet(3, channels=8, head_size=8, dtype=dtype, rngs=nnx.Rngs(params=0)), (8, 8, 3)),
}


def products(jaxpr):
    """Every convolution and matrix product of pixels, and of vectors, with the dtypes of what goes in."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            vectors = all(v.aval.ndim == 2 for v in equation.invars)
            kind = "vectors" if vectors else equation.primitive.name
            yield kind, tuple(sorted({str(v.aval.dtype) for v in equation.invars}))
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def forward_and_backward(build, shape, dtype):
    """The network, its parameters and inputs, and the derivative in parameters and image of a sum over its output."""
    apply, params = as_function(nnx.eval_shape(lambda: build(dtype)))
    x, c_noise = jnp.zeros((2, *shape)), jnp.asarray([0.5, 2.0])
    keys = jax.random.split(jax.random.key(0), 2)

    def total(params, x):
        return jnp.sum(apply(params, x, c_noise, None, keys) ** 2)

    return apply, params, (x, c_noise, None, keys), jax.grad(total, argnums=(0, 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_convolution_is_in_float32(name):
    apply, params, inputs, derivative = forward_and_backward(*NETWORKS[name], jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):  # JAX's attention has its softmax in float32, implicitly
        forward = jax.make_jaxpr(apply)(params, *inputs)
        backward = jax.make_jaxpr(derivative)(params, inputs[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert {v.aval.dtype for v in forward.jaxpr.outvars} == {jnp.dtype(jnp.float32)}
    assert {dtypes for kind, dtypes in products(forward.jaxpr) if kind != "vectors"} == {("bfloat16",)}
    found = collections.Counter(products(backward.jaxpr))
    for jaxpr in (forward.jaxpr, backward.jaxpr):
        assert {dtypes for kind, dtypes in products(jaxpr) if kind == "vectors"} == {("float32",)}
    assert {dtypes for kind, dtypes in found if kind == "conv_general_dilated"} == {("bfloat16",)}
    # what comes back through the softmax meets query and key in float32
    assert {dtypes for kind, dtypes in found if kind == "dot_general"} == {("bfloat16",), ("bfloat16", "float32")}


EMBEDDINGS = {
    "ncsnpp": lambda net, c, keys: net.embedding(net.noise.features(c), None),
    "song": lambda net, c, keys: net.embedding(c, {"label": LABEL, "augment": jnp.ones((2, 2))}, keys),
    "adm": lambda net, c, keys: net.embedding(c, LABEL, keys),
    "dit": lambda net, c, keys: net.embedding(c, LABEL, keys),
    "edm2": lambda net, c, keys: net._embed(c, LABEL, keys),
    "unet": lambda net, c, keys: net.embedding(c, LABEL),
}
LABEL = jnp.array([1, 1])
BUILT = {
    "ncsnpp": NETWORKS["ncsnpp residual"][0],
    "song": NETWORKS["song"][0],
    "adm": NETWORKS["adm"][0],
    "dit": lambda dtype: DiT(1, width=16, depth=1, heads=2, classes=2, dtype=dtype, rngs=nnx.Rngs(params=0)),
    "edm2": lambda dtype: EDM2UNet(
        1,
        8,
        channels=16,
        multipliers=(1,),
        blocks=1,
        attention_resolutions=(),
        head_size=16,
        classes=2,
        dtype=dtype,
        rngs=nnx.Rngs(params=0),
    ),
    "unet": lambda dtype: UNet(1, channels=8, head_size=8, classes=2, dtype=dtype, rngs=nnx.Rngs(params=0)),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_noise_levels_and_labels_are_embedded_as_in_float32(name):
    """To the last bit."""
    c, keys = jnp.array([0.5, 0.5005]), jax.random.split(jax.random.key(0), 2)  # one number in bfloat16
    single, half = (EMBEDDINGS[name](BUILT[name](dtype), c, keys) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_array_equal(half, single)
    assert np.any(half[0] != half[1])
