"""EDM2's network and the transformer, against outputs and derivatives of the published code."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdelab.nn import DiT, EDM2UNet, as_function
from tests.nn.edm_cases import QUICK, assert_close, load

EDM2_ARGUMENTS = {
    "img_channels": "image_channels",
    "img_resolution": "image_size",
    "label_dim": "classes",
    "model_channels": "channels",
    "channel_mult": "multipliers",
    "num_blocks": "blocks",
    "attn_resolutions": "attention_resolutions",
    "channels_per_head": "head_size",
    "channel_mult_noise": "noise_multiplier",
    "channel_mult_emb": "embedding_multiplier",
    "label_balance": "label_balance",
    "concat_balance": "skip_balance",
    "res_balance": "residual_balance",
    "attn_balance": "attention_balance",
}
EDM2_LAYERS = {
    "emb_gain": "residual.gain",
    "conv_res0.weight": "residual.conv0.weight",
    "emb_linear.weight": "residual.modulation.weight",
    "conv_res1.weight": "residual.conv1.weight",
    "conv_skip.weight": "skip.weight",
    "attn_qkv.weight": "attention.query_key_value.weight",
    "attn_proj.weight": "attention.out.weight",
}
EDM2_ENDS = {
    "emb_fourier.freqs": "fourier.frequencies",
    "emb_fourier.phases": "fourier.phases",
    "emb_noise.weight": "noise.weight",
    "emb_label.weight": "label.weight",
    "out_conv.weight": "last.weight",
    "out_gain": "gain",
}
DIT_ARGUMENTS = {
    "in_channels": "image_channels",
    "patch_size": "patch",
    "hidden_size": "width",
    "depth": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "num_classes": "classes",
}
DIT_LAYERS = {
    "x_embedder.proj": "first",
    "t_embedder.mlp.0": "embedding.first",
    "t_embedder.mlp.2": "embedding.second",
    "y_embedder.embedding_table": "embedding.label",
    "final_layer.adaLN_modulation.1": "modulation",
    "final_layer.linear": "last",
    "adaLN_modulation.1": "modulation",
    "attn.qkv": "query_key_value",
    "attn.proj": "out",
    "mlp.fc1": "hidden",
    "mlp.fc2": "mlp_out",
}


def edm2(config):
    arguments = {EDM2_ARGUMENTS[k]: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    side = config["img_resolution"]

    def path(name):
        if name in EDM2_ENDS:
            return EDM2_ENDS[name]
        way, width, block, layer = re.fullmatch(r"(enc|dec)\.(\d+)x\d+_(\w+)(?:\.(.+))", name).groups()
        level, coder = (side // int(width)).bit_length() - 1, {"enc": "encoder", "dec": "decoder"}[way]
        if block == "conv":
            return "first.weight"
        return f"{coder}.{block if block.startswith('in') else f'level{level}_{block}'}.{EDM2_LAYERS[layer]}"

    def layout(name, a):
        return (
            a
            if a.ndim < 2
            else a.reshape(a.shape[:2]).T
            if a.size == a.shape[0] * a.shape[1]
            else a.transpose(2, 3, 1, 0)
        )

    return functools.partial(EDM2UNet, **arguments), path, layout


def dit(config):
    arguments = {DIT_ARGUMENTS[k]: v for k, v in config.items() if k in DIT_ARGUMENTS}
    channels = config["in_channels"] * (1 if config.get("learn_sigma") is False else 2)

    def path(name):
        layer, kind = name.rsplit(".", 1)
        kind = "" if "embedding_table" in layer else {"weight": ".kernel", "bias": ".bias"}[kind]
        if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", layer):
            return f"blocks.block{found[1]}.{DIT_LAYERS[found[2]]}{kind}"
        return DIT_LAYERS[layer] + kind

    def layout(name, a):
        if (
            name == "y_embedder.embedding_table.weight"
        ):  # ours has a last row for "none", as theirs if labels are dropped
            return a if len(a) > config["num_classes"] else np.concatenate([a, np.zeros_like(a[:1])])
        return a if a.ndim < 2 else a.transpose(2, 3, 1, 0).reshape(-1, len(a)) if a.ndim == 4 else a.T

    return functools.partial(DiT, out_channels=channels, noise_scale=1.0, **arguments), path, layout


def leaf(tree, path):
    return functools.reduce(lambda node, key: node[key], path.split("."), tree)


CASES = {"dit_labels": dit, "dit_patch3": dit, "edm2_balances": edm2, "edm2_labels": edm2}


@pytest.mark.parametrize("name", CASES)
def test_output_and_derivatives(name):
    arrays, state, meta = load(name)
    network, path, layout = CASES[name](meta["config"])
    apply, shapes = as_function(nnx.eval_shape(lambda: network(rngs=nnx.Rngs(params=0))))
    weights = {path(key): layout(key, value) for key, value in state.items()}
    names = [".".join(str(key.key) for key in keys) for keys, _ in jax.tree.leaves_with_path(shapes)]
    assert sorted(names) == sorted(weights)
    params = jax.tree.unflatten(jax.tree.structure(shapes), [jnp.asarray(weights[key]) for key in names])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    label = (
        None
        if "label" not in arrays
        else jnp.where(arrays["label"] < meta["config"].get("num_classes", 4), arrays["label"], -1)
    )

    @functools.partial(jax.jit, compiler_options=QUICK)
    def evaluate(params, x, cotangent):
        out, pull_back = jax.vjp(lambda params, x: apply(params, x, jnp.asarray(arrays["c_noise"]), label), params, x)
        return out, *pull_back(cotangent)

    out, by_parameter, by_image = evaluate(params, arrays["x"], arrays["cotangent"])
    assert_close(out, arrays["out"], 2e-5)
    assert_close(by_image, arrays["vjp_x"], 1e-4)
    rounding = 1e-6 * max(
        arrays["param_grad_l2"]
    )  # a gain's derivative is one number, in which most of what is summed cancels
    expected = zip(map(str, arrays["param_names"]), arrays["param_grad_l2"], arrays["param_grad_dot"], strict=True)
    for i, (key, norm, product) in enumerate(expected):
        own = np.asarray(leaf(by_parameter, path(key)), np.float64)
        drawn = layout(key, np.random.RandomState(i).normal(size=state[key].shape))
        np.testing.assert_allclose(np.linalg.norm(own), norm, rtol=1e-4, atol=rounding, err_msg=key)
        allowed = 1e-4 * norm + rounding  # of a product as of a norm: it may cancel too
        np.testing.assert_allclose(np.sum(own * drawn), product, rtol=1e-4, atol=allowed, err_msg=key)
