"""The published networks of score_sde, by their numbers: output, and its derivatives in image and every parameter."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from sdelab.interop.score_sde import score_sde_network
from sdelab.interop.score_sde_flax import score_sde_flax_params, score_sde_flax_places
from sdelab.interop.score_sde_torch import score_sde_torch_params, score_sde_torch_places
from sdelab.nn import NCSNpp, as_function, presets
from tests.nn.score_sde_cases import FLAX, TORCH, cases, evaluated, published


def relative_error(ours, theirs):
    """Of the worst sample: with `scale_by_sigma` the smallest sigma would hide all others."""
    ours, theirs = (np.abs(a).reshape(len(a), -1).max(1) for a in (ours - theirs, theirs))
    return np.max(ours / theirs)


def leaf(tree, path):
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


@pytest.mark.parametrize("name", cases([*TORCH, FLAX]))
def test_output(name):
    assert relative_error(evaluated(name).out, published(name).arrays["out"]) <= 2e-5


@pytest.mark.parametrize("name", cases([*TORCH, FLAX]))
def test_derivative_in_the_image(name):
    assert relative_error(evaluated(name).of_x, published(name).arrays["vjp_x"]) <= 1e-4


@pytest.mark.parametrize("name", cases(TORCH))
def test_norm_of_the_derivative_in_every_parameter(name):
    case, ours = published(name), evaluated(name).of_params
    places = score_sde_torch_places(case.network)
    published_norms = dict(zip(case.arrays["param_names"], case.arrays["param_grad_l2"], strict=True))
    norms = {key: np.linalg.norm(leaf(ours, place.path)) for key, place in places.items() if key in published_norms}
    assert all(published_norms[key] == 0.0 for key in published_norms.keys() - norms.keys())
    theirs = np.asarray([published_norms[key] for key in norms])
    # a bias before a normalisation has the gradient 0, which is rounding in both
    np.testing.assert_allclose(list(norms.values()), theirs, rtol=1e-4, atol=1e-6 * theirs.max())


@pytest.mark.parametrize("name", cases(TORCH))
def test_features_of_the_label(name):
    case = published(name)
    noise = nnx.merge(nnx.split(case.network)[0], case.params).noise
    np.testing.assert_allclose(noise.features(case.c_noise), case.arrays["emb"], atol=2e-5)


@pytest.mark.parametrize("name", cases(TORCH))
def test_names_are_in_the_published_order_and_the_frequencies_are_not_trained(name):
    """The averages of a published checkpoint have no names: they are in this order."""
    case = published(name)
    names = [key for key in score_sde_torch_places(case.network) if key != "all_modules.0.W"]
    assert names == [key for key in case.arrays["param_names"] if case.network.common.embedding or "Dense" not in key]
    if case.config["model"]["embedding_type"] == "fourier":
        assert np.all(leaf(evaluated(name).of_params, ("noise", "fourier", "frequencies")) == 0.0)


def test_both_codes_have_the_same_network_under_different_names():
    """Of the same layers: the names of one, put into those of the other, are the same parameters."""
    network = published("score_sde_ncsnpp_ve_gray_cat").network
    torch, flax = score_sde_torch_places(network), score_sde_flax_places(network)
    assert [place.path for place in torch.values()] == [place.path for place in flax.values()]


def test_the_original_network_has_classes_of_its_own_in_flax():
    case = published("score_sde_ddpm_vp_continuous")
    shapes = as_function(case.network)[1]
    places = score_sde_flax_places(case.network, original=True)
    assert {"ResnetBlockDDPM_7/NIN_0/W", "AttnBlock_2/NIN_3/b", "Downsample_0/Conv_0/kernel"} <= set(places)
    arrays = {name: leaf(case.params, place.path) for name, place in places.items()}
    params = score_sde_flax_params(arrays, case.network)
    assert jax.tree.structure(params) == jax.tree.structure(shapes)
    jax.tree.map(np.testing.assert_array_equal, params, case.params)


def test_what_does_not_fit_is_named():
    case = published("score_sde_ncsnpp_ve_discrete_positional")
    state = dict(case.state)
    state["all_modules.99.weight"] = state.pop("all_modules.2.weight")
    state["all_modules.0.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError) as error:
        score_sde_torch_params(state, case.network)
    for part in ("without a place: all_modules.99.weight", "without an array: first/kernel", "all_modules.0.bias"):
        assert part in str(error.value)


def test_a_table_of_sigmas_is_compared_where_it_is_used():
    case = published("score_sde_ncsnpp_ve_discrete_positional")
    config = json.loads(json.dumps(case.config))
    config["model"]["sigma_max"] = 90.0
    other = nnx.eval_shape(lambda: score_sde_network(config, rngs=nnx.Rngs(params=0)))
    with pytest.raises(ValueError, match=r"sigmas has 200 values from 50 to 0\.01; .* give 200 from 90 to 0\.01"):
        score_sde_torch_params(case.state, other)


@pytest.mark.parametrize(
    ("name", "preset", "changes"),
    [
        ("score_sde_ddpm_vp_continuous", presets.ddpm, {"multipliers": (1, 1), "channels": 32, "blocks": 1}),
        ("score_sde_ddpmpp_vp_continuous", presets.ddpmpp, {"blocks": 2}),
        ("score_sde_ncsnpp_ve_continuous", presets.ncsnpp, {"multipliers": (1, 2, 2)}),
        ("score_sde_ncsnpp_ve_highres", presets.ncsnpp_256, {"multipliers": (1, 2, 2), "dropout": 0.1}),
        ("score_sde_ncsnpp_ve_discrete_positional", presets.ncsnpp_discrete, {"num_scales": 200}),
    ],
)
def test_presets_have_the_options_of_the_published_configurations(name, preset, changes):
    small = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (8,)}
    settings = preset() | small | changes
    network = nnx.eval_shape(lambda: NCSNpp(3, image_size=16, **settings, rngs=nnx.Rngs(params=0)))
    assert as_function(network)[0] == published(name).apply


def test_options_without_a_published_network_are_refused():
    config = published("score_sde_ncsnpp_ve_highres").config
    for key, value, words in (
        ("name", "ncsnv2", r"unknown network of score_sde 'ncsnv2'"),
        ("normalization", "InstanceNorm", r"normalization = 'InstanceNorm' is not accepted"),
        ("nonlinearity", "gelu", r"unknown activation 'gelu'"),
    ):
        changed = {**config, "model": {**config["model"], key: value}}
        with pytest.raises(ValueError, match=words):
            score_sde_network(changed, rngs=nnx.Rngs(params=0))
