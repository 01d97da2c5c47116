"""Parameters of the original score_sde, by the paths of its flax modules: `ResnetBlockBigGANpp_0/Conv_0/kernel`."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from sdelab.interop.placement import Layout, Place, as_it_is, place
from sdelab.interop.score_sde import Kind, LayerKind, parts
from sdelab.nn import NCSNpp, as_function


def pointwise(kernel: np.ndarray) -> np.ndarray:
    """Convolutions by one pixel, `(1, 1, in, out)`, to `(in, out)`."""
    return kernel.reshape(kernel.shape[-2:])


LEAVES: dict[LayerKind, dict[str, tuple[str, Layout]]] = {
    "fourier": {"W": ("frequencies", as_it_is)},
    "linear": {"kernel": ("kernel", as_it_is), "bias": ("bias", as_it_is)},
    "nin": {"W": ("kernel", as_it_is), "b": ("bias", as_it_is)},
    "conv": {"kernel": ("kernel", as_it_is), "bias": ("bias", as_it_is)},
    "pointwise": {"kernel": ("kernel", pointwise), "bias": ("bias", as_it_is)},
    "filtered": {"weight": ("kernel", as_it_is), "bias": ("bias", as_it_is)},
    "norm": {"scale": ("scale", as_it_is), "bias": ("bias", as_it_is)},
}
"""For each kind of layer its published arrays, with the name and layout of ours."""

CLASSES: dict[Kind, str] = {
    "attention": "AttnBlockpp",
    "combine": "Combine",
    "conv": "Conv",
    "down": "Downsample",
    "fourier": "GaussianFourierProjection",
    "linear": "Dense",
    "norm": "GroupNorm",
    "up": "Upsample",
}
"""Published classes. A name is a class and its number among the parts of that class."""

BLOCKS = {"biggan": "ResnetBlockBigGANpp", "ddpm": "ResnetBlockDDPMpp"}
ORIGINAL = {"AttnBlockpp": "AttnBlock", "ResnetBlockDDPMpp": "ResnetBlockDDPM"}
"""Classes of the network `ddpm` that have other names in it."""


def score_sde_flax_places(network: NCSNpp, *, original: bool = False) -> dict[str, Place]:
    """The place of every published name; `original`: of the network `ddpm`, and not of `ncsnpp`."""
    found, numbers = {}, collections.Counter()
    classes = CLASSES | {"block": BLOCKS[network.common.block]}
    for part in parts(network):
        name = classes[part.kind]
        name = ORIGINAL.get(name, name) if original else name
        for layer in part.layers:
            above = "/".join(filter(None, (f"{name}_{numbers[name]}", layer.name)))
            for leaf, (ours, layout) in LEAVES[layer.kind].items():
                found[f"{above}/{leaf}"] = Place((*layer.path, ours), layout)
        numbers[name] += 1
    return found


def score_sde_flax_params(arrays: Mapping[str, np.ndarray], network: NCSNpp) -> dict[str, Any]:
    """The parameters of `as_function(network)`, from arrays by path; `network` may hold shapes only.

    Errors: names or shapes that do not fit, all of them in one message.
    """
    original = any(name.startswith("AttnBlock_") for name in arrays)
    places = score_sde_flax_places(network, original=original)
    return place(arrays, as_function(network)[1], places.get)
