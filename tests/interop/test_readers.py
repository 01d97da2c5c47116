"""Files that torch, pickle and flax wrote are read to the bit, without any of their code being executed."""

import numpy as np
import pytest

from sdelab.interop.pickled import UnreadableCheckpoint
from sdelab.interop.published import READERS, read_edm, read_score_sde_flax, read_score_sde_torch
from sdelab.interop.torch_file import read_torch
from tests.interop.real_files import INTEROP, network, restore

TORCH = ["score_sde_ddpmpp_vp_continuous", "score_sde_ncsnpp_ve_continuous", "score_sde_ddpm_vp_continuous"]
FLAX = "jax_score_sde_ncsnpp_ve_progressive_residual_fir"
EDM = sorted(path.stem for path in INTEROP.glob("edm_*.npz"))


@pytest.mark.parametrize("file", ["tensors.pth", "tensors_legacy.pth", "tensors.pkl"])
def test_every_kind_of_tensor_is_read_to_the_bit(file):
    tree = read_torch(INTEROP / file)
    with np.load(INTEROP / "tensors.npz") as expected:
        names = set(expected.files)
        for name in names:
            array = tree[name]
            if name == "bfloat16":
                assert array.dtype.name == "bfloat16"
                array = array.astype(np.float32)
            assert array.dtype == expected[name].dtype, name
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
    rest = {name: value for name, value in tree.items() if name not in names}
    assert list(rest) == ["nested", "named", "numpy"]
    np.testing.assert_array_equal(rest["nested"]["list"].pop(0), np.float32([1.0]))
    assert rest["nested"] == {"list": [2, "three", None, True], "tuple": (1.5, (2, 3))}
    assert rest["named"].pop("dtype").name == "bfloat16"
    assert rest["named"] == {"device": "cpu", "set": {1, 2}, "bytes": b"\x00\xff"}
    np.testing.assert_array_equal(rest["numpy"].pop("array"), np.arange(6.0).reshape(2, 3).T)
    assert rest["numpy"] == {"scalar": 0.1, "integer": -3}


def test_a_view_costs_nothing_however_large_it_says_it_is():
    expanded = read_torch(INTEROP / "tensors.pth")["expanded"]
    assert expanded.strides == (0, 0)
    assert not expanded.flags.writeable


def check(arrays, expected, factor=1.0):
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, (expected[name] * np.float32(factor)).astype(expected[name].dtype), name)


@pytest.mark.parametrize("name", TORCH)
def test_score_sde_pytorch(name, tmp_path):
    """The averages get their names by their order: without the buffer, and without the frozen frequencies."""
    published = read_score_sde_torch(restore(name, tmp_path / "checkpoint_8.pth"))
    weights = network(name)["weights"]
    fixed = {"sigmas", "all_modules.0.W"} & weights.keys()
    assert len(fixed) == (2 if "ve" in name else 1)
    check(published.choose("averaged"), weights)
    check(published.choose("raw"), {k: v if k in fixed else v * np.float32(0.5) for k, v in weights.items()})
    assert (published.step, published.decay) == (7, 0.9999)
    assert published.config == {"model": {"num_scales": 1000, "sigma_max": 50.0, "sigma_min": 0.01}}


def test_score_sde_flax(tmp_path):
    published = read_score_sde_flax(restore(FLAX, tmp_path / "checkpoint_8"))
    weights = network(FLAX)["weights"]
    check(published.choose("averaged"), weights)
    check(published.choose("raw"), weights, 0.5)
    assert (published.step, published.decay) == (7, 0.999)


def test_arrays_in_chunks_are_one_array(tmp_path):
    from flax import serialization

    chunked = serialization.msgpack_restore((INTEROP / "chunked.msgpack").read_bytes())
    assert b"__msgpack_chunked_array__" in (INTEROP / "chunked.msgpack").read_bytes()
    np.testing.assert_array_equal(chunked["a"], np.arange(6000, dtype=np.float32).reshape(60, 100))


@pytest.mark.parametrize("name", EDM)
def test_edm(name, tmp_path):
    """The pickle's own source raises when it is executed; the arguments of the network are those it was made with."""
    fixture = network(name)
    published = read_edm(restore(name, tmp_path / "network.pkl"))
    check(published.choose("averaged"), fixture["weights"])
    meta = fixture["meta"]
    heads = {"channels_per_head": 8} if meta["config"]["model_type"] == "DhariwalUNet" else {}
    assert published.config == {"class_name": meta["precond"], "label_dim": 0, **meta["config"], **heads}
    with pytest.raises(ValueError, match="weights = 'raw' is not accepted; the file holds averaged weights only"):
        published.choose("raw")
    with pytest.raises(ValueError, match=r"unknown kind of weights 'average'\. Did you mean 'averaged'"):
        published.choose("average")


def test_the_training_state_of_edm_holds_raw_weights():
    published = read_edm(INTEROP / "training-state.pt")
    expected = {"u": np.ones(2, np.float32), "model.enc.16x16_conv.bias": np.arange(4, dtype=np.float32)}
    check(published.choose("raw"), expected)
    assert published.config["class_name"] == "EDMPrecond"
    with pytest.raises(ValueError, match="the file holds raw weights only"):
        published.choose("averaged")


@pytest.mark.parametrize(
    ("kind", "file", "message"),
    [
        (
            "score_sde_torch",
            "tensors.pth",
            "it is not a checkpoint of score_sde_pytorch: it holds float64, float32.*; accepted: model, ema",
        ),
        ("edm", "tensors.pkl", "it holds float64.*; accepted: 'ema' or 'net', a network of EDM"),
        (
            "score_sde_flax",
            "chunked.msgpack",
            "it is not a checkpoint of score_sde: it holds a; accepted: optimizer, params_ema",
        ),
        ("score_sde_flax", "tensors.pth", "tensors.pth is torn, or not of this format"),
        ("score_sde_torch", "chunked.msgpack", "chunked.msgpack is torn, or not of this format"),
    ],
)
def test_another_file_is_named_for_what_it_is(kind, file, message):
    with pytest.raises(UnreadableCheckpoint, match=message):
        READERS[kind](INTEROP / file)


@pytest.mark.parametrize("kind", READERS)
def test_a_torn_file_is_said_to_be_torn(kind, tmp_path):
    name = {"edm": EDM[0], "score_sde_flax": FLAX, "score_sde_torch": TORCH[0]}[kind]
    whole = restore(name, tmp_path / "file").read_bytes()
    for part in (0, 3, 100, len(whole) // 2, len(whole) - 30):
        (tmp_path / "file").write_bytes(whole[:part])
        with pytest.raises(UnreadableCheckpoint, match="file is torn, or not of this format"):
            READERS[kind](tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="absent"):
        READERS[kind](tmp_path / "absent")
