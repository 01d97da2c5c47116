"""The rival in PyTorch is our DDPM++, with the same weights; the clock and the limits of the comparison."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.train_step import __main__ as experiment
from experiments.train_step import kernel_gradient, ours
from experiments.train_step.rivals import torch_version
from experiments.train_step.seconds import Seconds, medians
from experiments.train_step.traffic import traffic

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

    found = medians({"a": side("a", [9.0, 9.0, 1.0, 3.0, 2.0]), "b": side("b", [9.0, 9.0, 5.0, 5.0, 6.0])}, 3)
    assert found == {"a": Seconds(2.0, 2.0), "b": Seconds(5.0, 5.0)}
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab"


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
