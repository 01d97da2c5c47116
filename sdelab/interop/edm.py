"""EDM's networks: from the arguments of its preconditioners to ours, and from its names of parameters to ours.

Karras et al. (2022), https://arxiv.org/abs/2206.00364. Its checkpoints hold a preconditioner whose `model` is the network.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from sdelab._checks import unknown_name
from sdelab.interop.placement import Layout, Place, as_it_is, convolution, linear, place
from sdelab.nn import ADM, LeadingChannels, SongUNet, as_function
from sdelab.nn.ncsnpp_pyramid import OutputSkip
from sdelab.nn.resampling import PLAIN, Taps

MODEL_TYPES = {
    "EDMPrecond": "DhariwalUNet",
    "VEPrecond": "SongUNet",
    "VPPrecond": "SongUNet",
    "iDDPMPrecond": "DhariwalUNet",
}
"""Preconditioners, with the network that each has where `model_type` is not given."""

NETWORKS: dict[str, type[SongUNet] | type[ADM]] = {"DhariwalUNet": ADM, "SongUNet": SongUNet}

COMMON = {
    "attn_resolutions": "attention_resolutions",
    "augment_dim": "augmentations",
    "channel_mult": "multipliers",
    "channel_mult_emb": "embedding_multiplier",
    "dropout": "dropout",
    "img_channels": "image_channels",
    "img_resolution": "image_size",
    "label_dim": "classes",
    "label_dropout": "label_dropout",
    "model_channels": "channels",
    "num_blocks": "blocks",
}
ARGUMENTS = {
    "DhariwalUNet": COMMON | {"channels_per_head": "head_size"},  # of its blocks: 64 in all that is published
    "SongUNet": COMMON
    | {
        "channel_mult_noise": "noise_multiplier",
        "decoder_type": "decoder",
        "embedding_type": "embedding",
        "encoder_type": "encoder",
        "resample_filter": "fir",
    },
}
"""Published names of the networks' arguments, and ours."""

OF_THE_PRECONDITIONER = frozenset(
    "C_1 C_2 M beta_d beta_min class_name epsilon_t model_type sigma_data sigma_max sigma_min use_fp16".split()
)
SEVERAL = ("attn_resolutions", "channel_mult", "resample_filter")
PUBLISHED_DEFAULTS = {"dropout": 0.1}
"""Where ours differ."""


def edm_network(config: Mapping[str, Any], *, rngs: nnx.Rngs, **settings: Any) -> SongUNet | ADM | LeadingChannels:
    """The network of a preconditioner of EDM, which `config` describes by `class_name` and its arguments.

    iDDPM's network returns twice the channels of the image, of which `LeadingChannels` keeps the first half. `settings`
    are arguments of ours, such as `dtype` or `head_size`, and win.

    Errors: an unknown class, network or argument.
    """
    kind, ours = edm_arguments(config)
    ours |= _attended(NETWORKS[kind], ours | settings) | settings
    if config["class_name"] != "iDDPMPrecond":
        return NETWORKS[kind](**ours, rngs=rngs)
    return LeadingChannels(
        NETWORKS[kind](**{"out_channels": 2 * ours["image_channels"], **ours}, rngs=rngs), ours["image_channels"]
    )


def edm_arguments(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The published name of the network, and the arguments of ours. Errors: see `edm_network`."""
    name = config["class_name"]
    if name not in MODEL_TYPES:
        raise unknown_name("preconditioner", str(name), MODEL_TYPES)
    kind = config.get("model_type", MODEL_TYPES[name])
    if kind not in NETWORKS:
        raise unknown_name("model_type", str(kind), NETWORKS)
    ours: dict[str, Any] = dict(PUBLISHED_DEFAULTS)
    for key, value in config.items():
        if key in OF_THE_PRECONDITIONER:
            continue
        if key not in ARGUMENTS[kind]:
            raise unknown_name(f"argument of {kind}", key, ARGUMENTS[kind])
        if key in SEVERAL and not isinstance(value, list | tuple):
            raise ValueError(f"{key} = {value!r} is not accepted; {key} must be several numbers, as (16, 8).")
        ours[ARGUMENTS[kind][key]] = tuple(value) if isinstance(value, list) else value
    return kind, ours | _attended(NETWORKS[kind], ours)


def _attended(network: type[SongUNet] | type[ADM], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`attention_resolutions` without those that no level has, which ours refuse and the published code passes over."""
    defaults = inspect.signature(network.__init__).parameters
    if "image_size" not in arguments:
        return {}
    multipliers, wanted = (
        arguments.get(name, defaults[name].default) for name in ("multipliers", "attention_resolutions")
    )
    sides = [arguments["image_size"] >> level for level in range(len(multipliers))]
    kept = tuple(side for side in wanted if side in sides)
    return {} if kept == tuple(wanted) else {"attention_resolutions": kept}


def edm_params(state: Mapping[str, np.ndarray], network: SongUNet | ADM | LeadingChannels) -> dict[str, Any]:
    """The parameters of `as_function(network)`, from a state_dict of EDM; `network` may hold shapes only.

    The buffers are no parameters: the resampling filters are compared with the network's, iDDPM's table of sigmas is
    passed over. A state_dict of the network alone, without the preconditioner's prefix `model.`, is taken too.

    Errors: names or shapes that do not fit, all of them in one message; a filter that is not the network's.
    """
    inner = network.network if isinstance(network, LeadingChannels) else network
    if not isinstance(inner, (SongUNet, ADM)):
        raise TypeError(f"network = {type(inner).__name__} is not accepted; accepted: SongUNet or ADM.")
    wrapped = any(name.startswith("model.") for name in state)
    arrays = {name.removeprefix("model."): value for name, value in state.items() if not (wrapped and name == "u")}
    filters = {name: arrays.pop(name) for name in list(arrays) if name.endswith("resample_filter")}
    _check_filters(filters, inner.common.taps if isinstance(inner, SongUNet) else PLAIN)
    _, shapes = as_function(inner)
    params = place(arrays, shapes, locator(inner))
    return {"network": params} if isinstance(network, LeadingChannels) else params


PATHS = {
    "map_noise": "embedding.fourier",
    "map_label": "embedding.label",
    "map_augment": "embedding.augment",
    "map_layer0": "embedding.first",
    "map_layer1": "embedding.second",
    "enc.{side}_conv": "first",
    "enc.{side}_down.{member}": "backbone.down.level{level}.{member}",
    "enc.{side}_block{i}.{member}": "backbone.encoder.level{level}_block{i}.{member}",
    "enc.{side}_aux_skip": "input.levels.level{above}",
    "enc.{side}_aux_residual": "input.levels.level{above}.conv",
    "dec.{side}_in0.{member}": "backbone.middle.before.{member}",
    "dec.{side}_in1.{member}": "backbone.middle.after.{member}",
    "dec.{side}_block{i}.{member}": "backbone.decoder.level{level}_block{i}.{member}",
    "dec.{side}_up.{member}": "backbone.up.level{level}.{member}",
    "dec.{side}_aux_norm": "output.{head}.norm",
    "dec.{side}_aux_conv": "output.{head}.conv",
    "out_norm": "norm",
    "out_conv": "last",
}
"""Published names of the layers, and the paths of ours; `side` is written 16x16, on our `level` 0 at `image_size`."""

MEMBERS = {
    "affine": "modulation",
    "conv0": "conv0",
    "conv1": "conv1",
    "norm0": "norm0",
    "norm1": "norm1",
    "norm2": "attention.norm",
    "proj": "attention.out",
    "qkv": "attention.query_key_value",
    "skip": "skip",
}
"""Layers inside a block."""

_WILD = {
    "{side}": r"(?P<side>\d+)x(?P=side)",
    "{i}": r"(?P<i>\d+)",
    "{member}": f"(?P<member>{'|'.join(MEMBERS)})",
}


def interleaved(array: np.ndarray) -> np.ndarray:
    """Query, key and value, published as `(channels, 3)` along the first axis, as `(3, channels)`."""
    return array.reshape(-1, 3, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)


def _kernel(weight: np.ndarray) -> np.ndarray:
    return convolution(weight) if math.prod(weight.shape[2:]) > 1 else linear(weight)


def _interleaved_kernel(weight: np.ndarray) -> np.ndarray:
    return linear(interleaved(weight))


def locator(network: SongUNet | ADM) -> Callable[[str], Place | None]:
    """From a published name, without `model.`, to its place in the network; None if it has none."""
    heads = isinstance(network, SongUNet) and isinstance(network.output, OutputSkip)
    patterns = {}
    for name, ours in PATHS.items():
        published = name.replace(".", r"\.")
        for wild, pattern in _WILD.items():
            published = published.replace(wild, pattern, 1)
        patterns[re.compile(published)] = ours.replace("{head}", "heads.level{level}" if heads else "head")

    def locate(name: str) -> Place | None:
        layer, _, leaf = name.rpartition(".")
        for pattern, ours in patterns.items():
            match = pattern.fullmatch(layer)
            if match is not None:
                path = _path(ours, match.groupdict(), network.plan.image_size)
                kind, layout = _leaf(layer, leaf)
                return Place((*path.split("."), kind), layout)
        return None

    return locate


def _path(ours: str, found: dict[str, str], image_size: int) -> str:
    level = (image_size // int(found.get("side", image_size))).bit_length() - 1
    member = MEMBERS.get(found.get("member", ""), "")
    return ours.format(level=level, above=level - 1, i=found.get("i"), member=member)


def _leaf(layer: str, leaf: str) -> tuple[str, Layout]:
    """Our name of a parameter of a layer, and its layout; an unknown name stays, and has no place."""
    if layer.endswith(".qkv"):
        return {"weight": ("kernel", _interleaved_kernel), "bias": ("bias", interleaved)}.get(leaf, (leaf, as_it_is))
    if leaf == "weight" and "norm" not in layer.rpartition(".")[2]:
        return "kernel", _kernel
    return {"freqs": "frequencies", "weight": "scale"}.get(leaf, leaf), as_it_is


def _check_filters(filters: Mapping[str, np.ndarray], taps: Taps) -> None:
    expected = np.outer(taps, taps) / np.sum(taps) ** 2
    for name, values in filters.items():
        if values.shape[-2:] != expected.shape or not np.allclose(values, expected, rtol=1e-5, atol=0.0):
            raise ValueError(f"{name} = {values.squeeze().tolist()} is not the network's filter, with taps = {taps}.")
