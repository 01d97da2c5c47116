"""The map of EDM's names is total: what does not fit is an error that names it."""

import numpy as np
import pytest
from flax import nnx

from sdelab.interop.edm import edm_arguments, edm_network, edm_params
from sdelab.nn import ADM, LeadingChannels, SongUNet
from tests.nn.edm_cases import load

SMALL = {"img_resolution": 8, "img_channels": 3, "model_channels": 8, "channel_mult": [1], "attn_resolutions": []}


@pytest.fixture(scope="module")
def published():
    _, state, meta = load("edm_EDMPrecond_SongUNet_ncsnpp")
    config = {"class_name": "EDMPrecond", **meta["config"]}
    return state, nnx.eval_shape(lambda: edm_network(config, rngs=nnx.Rngs(params=0)))


def test_attention_at_a_resolution_that_is_not_there_is_none():
    """The published class attends at 16 by default, and passes over it where no level has that resolution."""
    config = {"class_name": "EDMPrecond", **SMALL, "channel_mult": [1, 1], "attn_resolutions": [16, 4]}
    _, arguments = edm_arguments(config)
    assert arguments["attention_resolutions"] == (4,)
    config["model_type"] = "SongUNet"

    def attends(config, **settings):
        network = nnx.eval_shape(lambda: edm_network(config, rngs=nnx.Rngs(params=0), **settings))
        return any("encoder" in path and "attention" in path for path, _ in nnx.to_flat_state(nnx.state(network)))

    assert attends(config)
    del config["attn_resolutions"]
    assert not attends(config)
    with pytest.raises(ValueError, match=r"attention_resolutions = \(7,\)"):  # what is asked of ours is not passed over
        attends(config, attention_resolutions=(7,))


def test_the_network_alone_and_its_preconditioner_give_the_same(published):
    state, network = published
    alone = edm_params({name.removeprefix("model."): array for name, array in state.items()}, network)
    within = edm_params(state, network)
    assert np.array_equal(
        within["embedding"]["fourier"]["frequencies"], state["model.map_noise.freqs"]
    )  # drawn once, at random: they must come from the checkpoint
    np.testing.assert_equal(alone, within)


def test_everything_that_does_not_fit_is_named(published):
    state, network = published
    broken = dict(state)
    broken["model.enc.16x16_block0.conv7.weight"] = broken.pop("model.enc.16x16_block0.conv1.weight")
    broken["model.map_layer1.bias"] = np.zeros(3)
    broken["model.enc.32x32_conv.bias"] = np.zeros(3)
    with pytest.raises(ValueError, match="do not fit") as error:
        edm_params(broken, network)
    for part in (
        "enc.16x16_block0.conv7.weight",
        "enc.32x32_conv.bias",
        "backbone/encoder/level0_block0/conv1/kernel",
        "map_layer1.bias as (3,), where embedding/second/bias has (64,)",
    ):
        assert part in str(error.value)


def test_a_filter_of_another_network_is_refused(published):
    state, network = published
    name = "model.enc.8x8_down.skip.resample_filter"
    with pytest.raises(ValueError, match=r"enc.8x8_down.skip.resample_filter = .* taps = \(1, 3, 3, 1\)"):
        edm_params({**state, name: np.full((1, 1, 2, 2), 0.25, np.float32)}, network)


def test_the_network_of_each_preconditioner():
    def network(class_name, **config):
        return nnx.eval_shape(
            lambda: edm_network({"class_name": class_name, **SMALL, **config}, rngs=nnx.Rngs(params=0))
        )

    song = network("VPPrecond", beta_d=19.9, use_fp16=False, resample_filter=[1, 3, 3, 1])
    assert isinstance(song, SongUNet)
    assert (song.plan.dropout, song.common.taps) == (0.1, (1, 3, 3, 1))  # dropout: the published default
    assert isinstance(network("EDMPrecond", dropout=0.2), ADM)
    learned = network("iDDPMPrecond")
    assert isinstance(learned, LeadingChannels)
    assert (learned.channels, learned.network.plan.out) == (3, 6)
    with pytest.raises(ValueError, match=r"unknown preconditioner 'EDMPrecon'\. Did you mean 'EDMPrecond'"):
        network("EDMPrecon")
    with pytest.raises(
        ValueError, match=r"unknown argument of DhariwalUNet 'channel_multi'\. Did you mean 'channel_mult'"
    ):
        network("EDMPrecond", channel_multi=[1])
