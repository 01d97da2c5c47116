"""EDM's published networks, out of the fixtures, with their names translated."""

import functools
import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sdelab.interop.edm import edm_network, edm_params, locator
from sdelab.nn import LeadingChannels, as_function

QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile
FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "B_nets"
SONG = (
    "EDMPrecond_SongUNet_ddpmpp",
    "EDMPrecond_SongUNet_ncsnpp",
    "EDMPrecond_SongUNet_skip_skip",
    "VEPrecond_SongUNet_ncsnpp",
    "VPPrecond_SongUNet_ddpmpp",
)
DHARIWAL = ("EDMPrecond_DhariwalUNet_heads8", "iDDPMPrecond_DhariwalUNet")


def load(name):
    """Arrays of a fixture, images as NHWC; its state_dict; what it says of itself."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("__meta__")))
    state = {key.removeprefix("param:"): arrays.pop(key) for key in list(arrays) if key.startswith("param:")}
    arrays = {key: np.moveaxis(a, 1, -1) if a.ndim == 4 and "param:" not in key else a for key, a in arrays.items()}
    return arrays, state, meta


@functools.cache
def published(name):
    """The network of a fixture with its weights, and all that the fixture holds."""
    arrays, state, meta = load(f"edm_{name}")
    config = {"class_name": meta["precond"], **meta["config"]}
    heads = {"head_size": meta["channels_per_head"]} if config["model_type"] == "DhariwalUNet" else {}
    network = nnx.eval_shape(lambda: edm_network(config, rngs=nnx.Rngs(params=0), **heads))
    apply, _ = as_function(network.network if isinstance(network, LeadingChannels) else network)
    params = edm_params(state, network)
    condition = {part: arrays.get(f"{key}_labels") for part, key in (("label", "class"), ("augment", "augment"))}
    condition = jax.tree.map(jnp.asarray, condition)
    return types.SimpleNamespace(
        network=network,
        function=apply,
        apply=jax.jit(apply, compiler_options=QUICK),
        params=params.get("network", params),
        condition=condition if any(part is not None for part in condition.values()) else None,
        state=state,
        arrays=arrays,
        named=functools.partial(_named, network, arrays.get("param_names", ())),
        precond=meta["precond"],
    )


def _named(network, names, gradient):
    """Leaves of a gradient under the published names of the parameters."""
    inner = network.network if isinstance(network, LeadingChannels) else network
    locate, leaves = locator(inner), {}
    for name in map(str, names):
        leaves[name] = gradient
        for key in locate(name.removeprefix("model.")).path:
            leaves[name] = leaves[name][key]
    return leaves


def coefficients(precond, sigma):
    """`c_skip`, `c_out` and `c_in` of Karras et al. (2022), table 1, in float64 and broadcast over images."""
    sigma = np.asarray(sigma, np.float64)[:, None, None, None]
    one = np.ones_like(sigma)
    if precond == "EDMPrecond":
        total = sigma**2 + 0.25
        return 0.25 / total, 0.5 * sigma / np.sqrt(total), 1.0 / np.sqrt(total)
    if precond == "VEPrecond":
        return one, sigma, one
    return one, -sigma, 1.0 / np.sqrt(sigma**2 + 1.0)


def assert_close(actual, expected, tolerance):
    """Per sample, relative to the largest value."""
    expected = np.asarray(expected, np.float64)
    batch = expected.shape[0]
    error = np.max(np.abs(np.asarray(actual, np.float64) - expected).reshape(batch, -1), axis=1)
    scale = np.max(np.abs(expected).reshape(batch, -1), axis=1)
    assert np.all(error <= tolerance * scale), error / scale
