"""Parameters of score_sde_pytorch, by the names of its state_dict: `all_modules.4.Conv_0.weight`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sdelab.interop.placement import Layout, Place, as_it_is, convolution, linear, place
from sdelab.interop.score_sde import LayerKind, parts
from sdelab.nn import NCSNpp, as_function
from sdelab.nn.ncsnpp_embedding import PositionalLabel

LEAVES: dict[LayerKind, dict[str, tuple[str, Layout]]] = {
    "fourier": {"W": ("frequencies", as_it_is)},
    "linear": {"weight": ("kernel", linear), "bias": ("bias", as_it_is)},
    "nin": {"W": ("kernel", as_it_is), "b": ("bias", as_it_is)},
    "conv": {"weight": ("kernel", convolution), "bias": ("bias", as_it_is)},
    "pointwise": {"weight": ("kernel", linear), "bias": ("bias", as_it_is)},
    "filtered": {"weight": ("kernel", convolution), "bias": ("bias", as_it_is)},
    "norm": {"weight": ("scale", as_it_is), "bias": ("bias", as_it_is)},
}
"""For each kind of layer its published arrays, with the name and layout of ours."""


def score_sde_torch_places(network: NCSNpp) -> dict[str, Place]:
    """The place of every published name, in the order of the state_dict."""
    found = {}
    for i, part in enumerate(parts(network)):
        for layer in part.layers:
            above = ".".join(filter(None, ("all_modules", str(i), layer.name)))
            for leaf, (ours, layout) in LEAVES[layer.kind].items():
                found[f"{above}.{leaf}"] = Place((*layer.path, ours), layout)
    return found


def score_sde_torch_params(state: Mapping[str, np.ndarray], network: NCSNpp) -> dict[str, Any]:
    """The parameters of `as_function(network)`, from a state_dict; `network` may hold shapes only.

    The buffer `sigmas` is no parameter: where the network uses its own table, the two are compared. Without noise
    conditioning the published blocks still hold a layer for the embedding that they never get; it is passed over.

    Errors: names or shapes that do not fit, all of them in one message; a table that is not the network's.
    """
    idle = not network.common.embedding
    arrays = {name: array for name, array in state.items() if not (idle and ".Dense_0." in name)}
    sigmas = arrays.pop("sigmas", None)
    if sigmas is not None and network.scale_by_sigma and isinstance(network.noise, PositionalLabel):
        _check_sigmas(np.asarray(sigmas), network.noise.table())
    return place(arrays, as_function(network)[1], score_sde_torch_places(network).get)


def _check_sigmas(sigmas: np.ndarray, ours: np.ndarray) -> None:
    if sigmas.shape != ours.shape or not np.allclose(sigmas, ours, rtol=1e-5, atol=0.0):
        raise ValueError(
            f"sigmas has {sigmas.size} values from {sigmas[0]:.6g} to {sigmas[-1]:.6g}; the network's num_scales, "
            f"sigma_max and sigma_min give {ours.size} from {ours[0]:.6g} to {ours[-1]:.6g}."
        )
