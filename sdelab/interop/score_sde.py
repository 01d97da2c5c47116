"""The networks of score_sde beside ours: the arguments of a configuration, and the order of the layers.

Both of its codes, in JAX and in PyTorch, name layers by the order in which they are made; it stands here once.
Song et al. (2021), https://github.com/yang-song/score_sde and https://github.com/yang-song/score_sde_pytorch.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

from flax import nnx

from sdelab._checks import unknown_name
from sdelab.nn import NCSNpp
from sdelab.nn.ncsnpp_blocks import ResidualBlock
from sdelab.nn.ncsnpp_embedding import FourierLabel
from sdelab.nn.ncsnpp_pyramid import InputResidual, InputSkip, OutputResidual, OutputSkip

Kind: TypeAlias = Literal["fourier", "linear", "conv", "norm", "block", "attention", "down", "up", "combine"]
LayerKind: TypeAlias = Literal["fourier", "linear", "nin", "conv", "pointwise", "filtered", "norm"]
Path: TypeAlias = tuple[str, ...]

NETWORKS = ("ddpm", "ncsnpp")
SHARED = {
    "dropout": "dropout",
    "nf": "channels",
    "num_res_blocks": "blocks",
    "num_scales": "num_scales",
    "resamp_with_conv": "resample_with_conv",
    "scale_by_sigma": "scale_by_sigma",
    "sigma_max": "sigma_max",
    "sigma_min": "sigma_min",
    "conditional": "noise_conditional",
    "nonlinearity": "activation",
}
NCSNPP_ONLY = {
    "embedding_type": "embedding",
    "fourier_scale": "fourier_scale",
    "init_scale": "init_scale",
    "progressive": "progressive",
    "progressive_combine": "combine",
    "progressive_input": "progressive_input",
    "resblock_type": "block",
    "skip_rescale": "skip_rescale",
}
"""Published names of the networks' arguments, and ours."""

ONLY = {"attention_type": "ddpm", "conv_size": 3, "normalization": "GroupNorm"}
"""Options that every published network has at one value."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer with parameters: its name inside its part ("" for the part itself), and the path of ours."""

    name: str
    kind: LayerKind
    path: Path


@dataclasses.dataclass(frozen=True)
class Part:
    """What score_sde counts in names: a layer or a block, without `layers` where it has no parameters."""

    kind: Kind
    layers: tuple[Layer, ...]


def score_sde_network(config: Mapping[str, Any], *, rngs: nnx.Rngs, **settings: Any) -> NCSNpp:
    """The network of a published configuration. `settings` are arguments of ours, such as `dtype`, and win."""
    return NCSNpp(**(score_sde_arguments(config) | settings), rngs=rngs)


def score_sde_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `NCSNpp` for a published configuration, a mapping with sections `data` and `model`.

    What a section leaves out is as by default here.

    Errors: a `model.name` other than `ddpm` and `ncsnpp`; an option without which every published network does.
    """
    data, model = config["data"], config["model"]
    if model["name"] not in NETWORKS:
        raise unknown_name("network of score_sde", str(model["name"]), NETWORKS)
    for key, only in ONLY.items():
        if model.get(key, only) != only:
            raise ValueError(f"{key} = {model[key]!r} is not accepted; {key} must be {only!r}.")
    original = model["name"] == "ddpm"
    names = SHARED if original else SHARED | NCSNPP_ONLY
    ours = {name: _lower(model[key]) for key, name in names.items() if key in model}
    sides = [data["image_size"] // 2**i for i in range(len(model["ch_mult"]))]
    ours |= {
        "image_channels": data["num_channels"],
        "image_size": data["image_size"],
        "centered": data["centered"],
        "multipliers": tuple(model["ch_mult"]),
        "attention_resolutions": tuple(side for side in model["attn_resolutions"] if side in sides),
    }
    if original:
        ours |= {"block": "ddpm", "skip_rescale": False, "groups": 32}
    elif model["fir"]:
        ours |= {"fir": tuple(model["fir_kernel"])}
    return ours


def parts(network: NCSNpp) -> Iterator[Part]:
    """The parts of a network in the order in which score_sde makes them; `network` may hold shapes only."""
    yield from _beginning(network)
    for i in range(len(network.widths)):
        level = network.down[f"level{i}"]
        for j in range(level.count):
            yield _block(level.blocks[f"block{j}"], ("down", f"level{i}", "blocks", f"block{j}"))
            if level.has_attention:
                yield _attention(("down", f"level{i}", "attention", f"block{j}"))
        if i < len(network.widths) - 1:
            yield _between(network, "shrink", i)
            yield from _input(network, i)
    yield _block(network.middle.before, ("middle", "before"))
    yield _attention(("middle", "attention"))
    yield _block(network.middle.after, ("middle", "after"))
    for i in reversed(range(len(network.widths))):
        level = network.up[f"level{i}"]
        for j in range(network.blocks + 1):
            yield _block(level.blocks[f"block{j}"], ("up", f"level{i}", "blocks", f"block{j}"))
        if level.has_attention:
            yield _attention(("up", f"level{i}", "attention"))
        yield from _output(network, i)
        if i > 0:
            yield _between(network, "grow", i)
    if not isinstance(network.output, OutputSkip):
        yield from _head(("output", "head"))


def _beginning(network: NCSNpp) -> Iterator[Part]:
    if isinstance(network.noise, FourierLabel):
        yield Part("fourier", (Layer("", "fourier", ("noise", "fourier")),))
    if network.common.embedding:
        yield Part("linear", (Layer("", "linear", ("embedding", "first")),))
        yield Part("linear", (Layer("", "linear", ("embedding", "second")),))
    yield Part("conv", (Layer("", "conv", ("first",)),))


def _block(block: ResidualBlock, path: Path) -> Part:
    layers = [Layer("GroupNorm_0", "norm", (*path, "norm1")), Layer("Conv_0", "conv", (*path, "conv1"))]
    if block.common.embedding:
        layers.append(Layer("Dense_0", "linear", (*path, "embedding")))
    layers += [Layer("GroupNorm_1", "norm", (*path, "norm2")), Layer("Conv_1", "conv", (*path, "conv2"))]
    if block.has_linear_skip and block.common.block == "biggan":
        layers.append(Layer("Conv_2", "pointwise", (*path, "skip")))
    elif block.has_linear_skip:
        layers.append(Layer("NIN_0", "nin", (*path, "skip")))
    return Part("block", tuple(layers))


def _attention(path: Path) -> Part:
    ours = enumerate(("query", "key", "value", "out"))
    layers = [Layer(f"NIN_{i}", "nin", (*path, name)) for i, name in ours]
    return Part("attention", (Layer("GroupNorm_0", "norm", (*path, "norm")), *layers))


def _between(network: NCSNpp, way: Literal["shrink", "grow"], level: int) -> Part:
    path = (way, f"level{level}")
    if network.common.block == "biggan":
        return _block(getattr(network, way)[path[1]], path)
    return _resampling("down" if way == "shrink" else "up", network, path, network.common.resample_with_conv)


def _resampling(kind: Literal["down", "up"], network: NCSNpp, path: Path, with_conv: bool) -> Part:
    if not with_conv:
        return Part(kind, ())
    if network.common.fir is None:
        return Part(kind, (Layer("Conv_0", "conv", (*path, "conv")),))
    return Part(kind, (Layer("Conv2d_0", "filtered", (*path, "conv")),))


def _input(network: NCSNpp, level: int) -> Iterator[Part]:
    path = ("input", "levels", f"level{level}")
    if isinstance(network.input, InputSkip):
        yield Part("combine", (Layer("Conv_0", "pointwise", path),))
    elif isinstance(network.input, InputResidual):
        yield _resampling("down", network, path, with_conv=True)


def _output(network: NCSNpp, level: int) -> Iterator[Part]:
    if isinstance(network.output, OutputSkip):
        yield from _head(("output", "heads", f"level{level}"))
    elif isinstance(network.output, OutputResidual) and level == len(network.widths) - 1:
        yield from _head(("output", "lowest"))
    elif isinstance(network.output, OutputResidual):
        yield _resampling("up", network, ("output", "levels", f"level{level}"), with_conv=True)


def _head(path: Path) -> Iterator[Part]:
    yield Part("norm", (Layer("", "norm", (*path, "norm")),))
    yield Part("conv", (Layer("", "conv", (*path, "conv")),))


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
