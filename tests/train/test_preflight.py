"""A step compiled ahead of time: for devices that are not there, from a configuration whose data are not there either."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from sdelab.cli.preflight import Target, preflight
from sdelab.train.preflight import lower_step, read_shortage
from sdelab.train.topology import read_topology

ROOT = Path(__file__).parents[2]
CONFIG = {
    "seed": 0,
    "sde": {"name": "VP"},
    "data": {"name": "cifar10"},
    "model": {"name": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1, "head_size": 8, "classes": 10},
    "preconditioner": {"name": "edm"},
    "loss": {},
    "optim": {"batch_size": 8},
    "ema": {"name": "warmup"},
    "run": {"steps": 1},
}
MLP = {**CONFIG, "data": {"name": "rings"}, "model": {"name": "mlp", "width": 128, "depth": 2}}
SCRIPT = """
import json, sys
from sdelab.train.topology import cpu_devices, tpu_devices
from sdelab.train.preflight import compile_step, lower_step
config, target, *placements = json.loads(sys.argv[1])
devices = tpu_devices(target) if ":" in target else cpu_devices(int(target))
found = {}
for placement in placements:
    step = lower_step({**config, "run": {"steps": 1, "placement": placement}}, devices)
    program = compile_step(step)
    found[placement] = {
        "gradients": len(step.parameters), "gradient": step.gradient, "held": step.held, "state": step.state,
        "arguments": program.memory.arguments, "donated": program.memory.donated, "flops": program.flops, "model": step.flops,
        "collectives": [[c.kind, c.arrays, c.size, c.devices] for c in program.collectives],
    }
print(json.dumps(found))
"""


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))


def compile_elsewhere(config, target, *placements):
    """In a process of its own, with as many devices as it is told."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "SDELAB_DATA": "nowhere"}
    command = [sys.executable, "-c", SCRIPT, json.dumps([config, target, *placements])]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def reduced(found):
    """Number of arrays, and bytes, that are summed over devices."""
    sums = [c for c in found["collectives"] if c[0] in ("all-reduce", "reduce-scatter")]
    return sum(c[1] for c in sums), sum(c[2] for c in sums)


@pytest.mark.slow
def test_every_placement_compiles_for_devices_that_are_not_there():
    """The step of one device says nothing to others; the copies of `data` and `pmap` sum each gradient once."""
    found = compile_elsewhere(MLP, "2", "jit", "data", "fsdp", "pmap")
    assert found["jit"]["collectives"] == []
    for placement in ("data", "pmap"):
        arrays, size = reduced(found[placement])
        assert found[placement]["gradients"] < arrays <= found[placement]["gradients"] + 2  # and the loss
        assert 0 < size - found[placement]["gradient"] <= 8
        assert found[placement]["held"] == found[placement]["state"]
    assert any(kind == "all-gather" for kind, *_ in found["fsdp"]["collectives"])
    assert found["fsdp"]["held"] < 0.6 * found["fsdp"]["state"]
    for placement in found.values():
        assert placement["donated"] >= placement["held"]
        assert 0 <= placement["arguments"] - placement["held"] < 1000  # the batch, the key and the window
        assert placement["model"] == found["jit"]["model"]
    # half of the products, and the division of each gradient by two, which XLA repeats in the few places that read it
    saved, parameters = found["jit"]["flops"] - found["data"]["flops"], found["jit"]["gradient"] / 4
    assert saved > found["jit"]["model"] / 2 - 6 * parameters


def test_a_step_that_fits_and_one_that_does_not(capsys):
    """What a device needs decides, and what to change is said with what it comes to."""
    target = Target(jax.devices()[:1], "this machine", memory=2**34)
    assert preflight(MLP, target) == 0
    words = capsys.readouterr().out
    assert "fits: " in words
    assert "of 16.00 GiB a device" in words
    assert preflight(MLP, Target(target.devices, target.name, memory=2**20)) == 1
    words = capsys.readouterr().out
    assert "does not fit: " in words
    for change in ("--config.run.pieces=", "--config.model.dtype=bfloat16"):
        assert change in words
    assert "fsdp" not in words  # on one device


def test_nothing_of_the_model_s_size_is_made():
    """A step with a state of a hundred gigabytes or so is lowered here."""
    config = {**MLP, "model": {"name": "mlp", "width": 65536, "depth": 1}}
    step = lower_step(config, jax.devices()[:1])
    assert step.state > 6e10
    assert step.flops >= 6 * 8 * 65536**2


def test_a_larger_batch_than_the_data_set_is_refused_without_it(no_data):
    with pytest.raises(ValueError, match=r"batch_size = 60000 is not accepted; cifar10 has 50000 training examples"):
        lower_step({**CONFIG, "optim": {"batch_size": 60_000}}, jax.devices()[:1])


def test_a_shortage_of_memory_is_read_from_what_the_compiler_says():
    early = (
        "RESOURCE_EXHAUSTED: ... the total memory required for HLO temporaries (18.50G) exceeds available HBM (15.75G)."
    )
    late = "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.00G of 15.75G hbm. Exceeded by 4.25G."
    assert read_shortage(early) == (int(18.5 * 2**30), int(15.75 * 2**30))
    assert read_shortage(late) == (20 * 2**30, int(15.75 * 2**30))
    assert read_shortage("INTERNAL: something else") is None


def test_slices_are_read_and_refused():
    chip, count = read_topology("v4:2x2x4")
    assert (chip.name, count) == ("v4", 16)
    with pytest.raises(ValueError, match=r"unknown chip 'v5x'\. Did you mean"):
        read_topology("v5x:4x4")
    with pytest.raises(ValueError, match=r"topology = 'v5e' is not accepted; accepted: CHIP:AxB"):
        read_topology("v5e")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, the extra sdelab[tpu]")
def test_the_gradients_of_a_tpu_slice_are_summed_in_one_operation():
    found = compile_elsewhere(MLP, "v5e:2x4", "data", "pmap")
    for placement in found.values():
        assert len(placement["collectives"]) == 1
        assert placement["collectives"][0][3] == 8
        assert reduced(placement)[1] - placement["gradient"] == 4  # and the loss
