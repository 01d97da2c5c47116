"""`sdelab sample` and `sdelab evaluate` on one device, on eight, and on two processes of two: the same numbers."""

import json
import os
import signal
import time

import numpy as np
import pytest

from sdelab.cli.main import run as sdelab
from tests.train.processes import gang, run

CONFIG = """
from sdelab.cli.base_config import toy_config


def get_config():
    config = toy_config("two_moons", "VP")
    config.model.width, config.model.depth, config.model.classes = 64, 1, 2
    config.optim.batch_size, config.run.steps = 32, 20
    return config
"""
COUNT, BATCH = 1010, 20  # 51 files; neither 8 nor 4 devices divide the last one
pytestmark = [pytest.mark.slow, pytest.mark.as_users]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    (folder / "config.py").write_text(CONFIG)
    assert sdelab(["sdelab", "train", "--config", str(folder / "config.py"), "--workdir", str(folder / "run")]) == 0
    return folder


def sample(folder, name, placement, *more):
    words = f"sample --workdir {folder}/run --solver ancestral --steps 20 --count {COUNT} --batch {BATCH}"
    return [*words.split(), f"--output={folder / name}", f"--placement={placement}", *more]


def evaluate(folder, name, placement):
    words = f"evaluate --workdir {folder}/run --solver ddim --steps 10 --count 50 --likelihoods 21 --batch 16"
    return [*words.split(), f"--parts={folder / name}", f"--placement={placement}"]


def start(count, devices, folder, name, commands, *solves):
    """The commands in processes of their own; keeps the numbers of an evaluation apart."""
    (folder / f"{name}.json").write_text(json.dumps(commands))
    run(count, devices, folder / f"{name}.json", *solves, module="tests.evaluate.layouts")


def rows(shards):
    """The arrays of a folder of shards, after a look at the files: each row is in one of them, and in its place."""
    files = sorted(shards.glob("*.npz"))
    spans = [tuple(map(int, path.stem.split("-"))) for path in files]
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    loaded = [dict(np.load(path)) for path in files]
    assert all(
        len(a) == last - first + 1 for (first, last), part in zip(spans, loaded, strict=True) for a in part.values()
    )
    return {name: np.concatenate([part[name] for part in loaded]) for name in loaded[0]}


@pytest.fixture(scope="module")
def eight(folder):
    """On eight devices: one of them alone, a batch over all, and the weights too."""
    commands = [sample(folder, f"{name} samples", name) for name in ("jit", "data", "fsdp")]
    commands += [evaluate(folder, f"{name} evaluation", name) for name in ("jit", "data")]
    start(1, 8, folder, "eight", commands, folder / "solves.npz")
    return folder


def assert_same_samples(found, expected):
    assert len(found["x"]) == COUNT
    np.testing.assert_allclose(found["x"], expected["x"], atol=1e-5)
    for name in ("label", "evaluations"):
        np.testing.assert_array_equal(found[name], expected[name])


def assert_same_evaluation(found, expected):
    """The likelihood's steps are adaptive: one more or less, by the last digits, moves it by their tolerance, 1e-5 of its terms."""
    for part, name, count, error in (("samples", "x", 50, 1e-5), ("likelihoods", "density", 21, 5e-4)):
        ours, theirs = rows(found / part)[name], rows(expected / part)[name]
        assert len(ours) == count
        np.testing.assert_allclose(ours, theirs, atol=error)


@pytest.mark.parametrize("placement", ["data", "fsdp"])
def test_eight_devices_draw_the_samples_of_one(eight, placement):
    assert_same_samples(rows(eight / f"{placement} samples"), rows(eight / "jit samples"))


def test_eight_devices_evaluate_as_one(eight):
    assert_same_evaluation(eight / "data evaluation", eight / "jit evaluation")


def test_inputs_that_are_split_give_the_numbers_of_those_that_are_not(eight):
    found = dict(np.load(eight / "solves.npz"))
    for name in ("prior", "noise"):
        np.testing.assert_array_equal(found[f"data {name}"], found[f"one {name}"])
    for name in ("x", "log_p"):
        np.testing.assert_allclose(found[f"data {name}"], found[f"one {name}"], rtol=1e-5, atol=1e-5)


def test_two_processes_of_two_devices_draw_and_evaluate_as_one_device(eight):
    """Each writes a part of the files, and one of them what there is one of."""
    name = "two evaluation"
    start(2, 2, eight, "two", [sample(eight, "two samples", "data"), evaluate(eight, name, "data")])
    assert_same_samples(rows(eight / "two samples"), rows(eight / "jit samples"))
    assert_same_evaluation(eight / name, eight / "jit evaluation")
    numbers = json.loads((eight / "run" / "evaluation.json").read_text())
    nats = rows(eight / name / "likelihoods")["density"].astype(np.float64)
    assert numbers["bits_per_dim"] == pytest.approx(nats.mean() / (2 * np.log(2)), rel=1e-12)


def test_killed_on_eight_devices_the_rest_is_drawn_on_them_to_the_bit(eight):
    command = sample(eight, "killed samples", "data")
    (eight / "killed.json").write_text(json.dumps([command]))
    shards = eight / "killed samples"
    with gang(1, 8, eight / "killed.json", module="tests.evaluate.layouts") as processes:
        while len(list(shards.glob("*.npz"))) < 3:
            assert processes[0].poll() is None
            time.sleep(0.005)
        os.kill(processes[0].pid, signal.SIGKILL)
        processes[0].wait()
    there = {path: path.stat().st_mtime_ns for path in shards.glob("*.npz")}
    assert len(there) < 51
    start(1, 8, eight, "killed", [command])
    assert {path: path.stat().st_mtime_ns for path in there} == there
    found, expected = rows(shards), rows(eight / "data samples")
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert sorted(path.suffix for path in shards.iterdir() if path.suffix != ".npz") == ["", ".json", ".png"]
