"""The published networks of score_sde, out of the fixtures, with their names translated."""

import functools
import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.interop.score_sde import score_sde_network
from sdelab.interop.score_sde_flax import score_sde_flax_params
from sdelab.interop.score_sde_torch import score_sde_torch_params
from sdelab.nn import as_function

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "B_nets"
FLAX = "jax_score_sde_ncsnpp_ve_progressive_residual_fir"
TORCH = tuple(sorted(path.stem for path in FOLDER.glob("score_sde_*.npz")))
QUICK = (  # every option is in one of them
    "jax_score_sde_ncsnpp_ve_progressive_residual_fir",
    "score_sde_ddpm_vp_continuous",
    "score_sde_ncsnpp_ddpmblock_residual_nofir",
    "score_sde_ncsnpp_ve_gray_cat",
)


def cases(names):
    """Parameters of a test: a network takes ten seconds to compile with its gradient."""
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in names]


def load(name):
    """Arrays of a fixture, images as NHWC; its published parameters; what it says of itself."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("__meta__")))
    state = {key.removeprefix("param:"): arrays.pop(key) for key in list(arrays) if key.startswith("param:")}
    if name != FLAX:
        arrays = {key: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for key, a in arrays.items()}
    return arrays, state, meta


@functools.cache
def published(name):
    """The network of a fixture with its weights, and all that the fixture holds."""
    arrays, state, meta = load(name)
    network = nnx.eval_shape(lambda: score_sde_network(meta["config"], rngs=nnx.Rngs(params=0)))
    load_params = score_sde_flax_params if name == FLAX else score_sde_torch_params
    apply, _ = as_function(network)
    return types.SimpleNamespace(
        network=network,
        apply=apply,
        params=jax.tree.map(jnp.asarray, load_params(state, network)),
        arrays=arrays,
        state=state,
        config=meta["config"],
        c_noise=jnp.asarray(arrays["cond"], jnp.float32),
    )


@functools.cache
def evaluated(name):
    """Output, and the derivatives of its product with the fixture's cotangent in image and parameters."""
    case = published(name)

    # a third of the time to compile; nothing here runs twice
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def evaluate(params, x, c_noise, cotangent):
        out, pull = jax.vjp(lambda p, z: case.apply(p, z, c_noise), params, x)
        return out, *pull(cotangent)

    out, of_params, of_x = evaluate(case.params, case.arrays["x"], case.c_noise, case.arrays["cotangent"])
    return types.SimpleNamespace(out=np.asarray(out), of_params=of_params, of_x=np.asarray(of_x))
