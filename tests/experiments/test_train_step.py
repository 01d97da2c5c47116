"""The rival in PyTorch is our DDPM++, with the same weights; the clock and the limits of the comparison."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.train_step import __main__ as experiment
from experiments.train_step import attention, kernel_gradient, ours, peaks
from experiments.train_step.rivals import torch_version
from experiments.train_step.seconds import Seconds, medians
from experiments.train_step.traffic import traffic
from sdelab.nn.flash_attention import formula

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1}


@pytest.mark.slow
def test_both_networks_are_one():
    torch = pytest.importorskip("torch")
    from experiments.train_step.rival import DDPMpp

    torch.manual_seed(0)
    rival = DDPMpp(**SMALL, attended=(1,), dropout=0.1).eval()
    module = ours.network(**SMALL, dropout=0.1)
    params = ours.from_rival({name: value.numpy() for name, value in rival.state_dict().items()}, module)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(p.numel() for p in rival.parameters())
    run = ours.Run(module, params, 2)
    x, label = (torch.from_numpy(np.array(array)) for array in (run.x, run.c_noise))
    with torch.no_grad():
        theirs = rival(x.permute(0, 3, 1, 2), label).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(run.evaluate(), theirs, atol=experiment.AGREEMENT * np.abs(theirs).max())


def test_initial_weights_have_the_shapes_of_the_network():
    module = ours.network(**SMALL, dropout=0.1)
    params = ours.initial_weights(module)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, ours.as_function(module)[1])
    kernel = params["middle"]["before"]["conv1"]["kernel"]
    assert float(np.std(kernel)) == pytest.approx(np.prod(kernel.shape[:-1]) ** -0.5, rel=0.1)


def test_sides_take_turns_and_the_first_runs_do_not_count():
    order = []

    def side(name, seconds):
        taken = iter(seconds)
        return lambda: (order.append(name), Seconds(*[next(taken)] * 2))[1]

    a, b = [9.0, 9.0, 9.0, 1.0, 9.0, 3.0, 9.0, 2.0], [9.0, 9.0, 9.0, 5.0, 9.0, 5.0, 9.0, 6.0]
    found = medians({"a": side("a", a), "b": side("b", b)}, 3)
    assert found == {"a": Seconds(2.0, 2.0), "b": Seconds(5.0, 5.0)}
    assert "".join(order) == "aabb" + "aabb" + "bbaa" + "aabb"


def seconds(**walls):
    return {name: Seconds(wall, 2.0 * wall) for name, wall in walls.items()}


def test_limits_are_the_faster_rival_and_a_fraction_of_the_published_code():
    forward = experiment.result("forward", 32, seconds(sdelab=0.11, PyTorch=0.12, compiled=0.10))
    assert (forward.limit, forward.holds) == (0.10, False)
    step = experiment.result("step", 64, seconds(sdelab=1.3, PyTorch=1.34, compiled=1.0))
    assert step.limit == pytest.approx(0.7 * 1.12 * 1.34 / 0.67)
    assert step.holds
    assert experiment.result("step", 32, seconds(sdelab=1.5)).limit is None
    assert experiment.result("step", 48, seconds(sdelab=1.5, PyTorch=1.0)).limit is None
    assert "0.110 (0.22)" in experiment.table([forward])
    assert "over the limit" in experiment.table([forward])


def test_an_interpreter_without_torch_has_no_version_and_one_that_is_none_is_an_error(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')  # without site-packages
    bare.chmod(0o755)
    assert torch_version(str(bare)) is None
    with pytest.raises(SystemExit, match="--torch-python /nowhere/python"):
        torch_version("/nowhere/python")


def test_a_run_is_of_so_many_calls_and_its_seconds_are_those_of_one(monkeypatch):
    wall, cores, calls = iter([10.0, 16.0]), iter([1.0, 2.5]), []
    monkeypatch.setattr(ours.time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(ours.time, "process_time", lambda: next(cores))
    assert ours.timed(lambda: calls.append(1), 3) == Seconds(2.0, 0.5)
    assert len(calls) == 3


def test_counted_flops():
    """14.3 GFLOP forwards for 32 channels and a batch of 16, less 5/9 of the two convolutions of doubled pixels, which are
    3 x 3 of 64 channels by 64 at 16 and at 32 pixels; in proportion to the batch but for the offsets of the residual stream, which
    the linear maps of its channels meet once."""
    network = experiment.MULTIPLIERS, experiment.BLOCKS, experiment.DROPOUT
    found = ours.counted(*ours.as_function(ours.network(32, *network)), 16)
    assert found["forward"] == pytest.approx(14.32e9 - 5 / 9 * 16 * (16**2 + 32**2) * 9 * 64**2 * 2, rel=0.001)
    assert found["step"] == 3 * found["forward"]
    small = ours.as_function(ours.network(**SMALL, dropout=0.1, dtype="bfloat16"))
    maps = (
        leaf.size
        for path, leaf in jax.tree.leaves_with_path(small[1])
        if path[-2].key in ("skip", "out") and leaf.ndim == 2
    )
    once = 2 * sum(maps)
    assert 0 < once < 1e-4 * ours.counted(*small, 2)["forward"]
    assert ours.counted(*small, 6)["forward"] - once == 3 * (ours.counted(*small, 2)["forward"] - once)


def test_the_share_of_the_peak():
    """By hand: 989.4e12 FLOP in two seconds are half of the datasheet's rate of an H100."""
    half = peaks.rate(Seconds(2.0, 2.0), 128, int(989.4e12), "NVIDIA H100 80GB HBM3", "bfloat16")
    assert half == pytest.approx((64.0, 494.7e12, 0.5))
    assert peaks.rate(Seconds(2.0, 2.0), 128, int(989.4e12), "NVIDIA H200", "float32").share == pytest.approx(1.0)
    unknown = peaks.rate(Seconds(2.0, 2.0), 128, 4, "cpu", "float32")
    assert unknown == (64.0, 2.0, None)
    assert peaks.words(half) == "64 images/s, 495 TFLOP/s, 50.0 %"


def test_limits_are_those_of_one_network_in_float32_on_cpu():
    assert experiment.limited(experiment.parse([]))
    for other in (["--dtype", "bfloat16"], ["--blocks", "4"], ["--multipliers", "1", "2", "2", "2"]):
        assert not experiment.limited(experiment.parse(other))


@pytest.mark.slow
def test_attention_is_held_against_the_formula_in_float32(monkeypatch, capsys):
    assert attention.main([]) == 2  # no GPU
    assert "no GPU" in capsys.readouterr().out

    def wrong(query, key, value):
        return formula(1.1 * query, key, value)

    results = attention.check((2, 16, 2, 8), {"cuDNN": formula, "XLA": formula, "wrong": wrong}, runs=1)
    for error in results["XLA"][:3]:
        assert 1e-4 < error < 0.01  # bfloat16 has 8 bits
    assert results["cuDNN"][:3] == results["XLA"][:3]
    assert not attention.holds(results)  # not cuDNN's
    called = results["cuDNN"]._replace(fused=(True, True))
    assert attention.holds({"cuDNN": called, "XLA": results["XLA"]})
    assert not attention.holds({"cuDNN": results["wrong"]._replace(fused=(True, True)), "XLA": results["XLA"]})


@pytest.mark.parametrize("way", ["shifts", "rows", "patches", "by_image"])
def test_every_way_to_the_gradient_in_the_kernel_is_the_derivative(way):
    x, g, kernel = (
        jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(2, 5, 4, 3), (2, 5, 4, 6), (3, 3, 3, 6)])
    )
    expected = jax.vjp(lambda k: kernel_gradient.convolution(x, k), kernel)[1](g)[0]
    found = getattr(kernel_gradient, way)(x, g).reshape(kernel.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_traffic_is_what_goes_in_and_out():
    x = jnp.ones((256, 128))
    compiled = jax.jit(lambda x: 2.0 * x + 1.0).lower(x).compile()
    assert traffic(compiled.as_text()) == {"elementwise": pytest.approx(2 * x.nbytes / 1e6)}
    compiled = jax.jit(lambda x, y: x @ y).lower(x, jnp.ones((128, 64))).compile()
    assert traffic(compiled.as_text()) == {"dot": pytest.approx(4 * (256 * 128 + 128 * 64 + 256 * 64) / 1e6)}
