"""Every row once, whatever the batch; shards that are there are not made again, and those of other settings are left alone."""

import json
import os
import signal

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdelab
from sdelab import exact, grids, solvers
from sdelab.data import Dataset, GreyLevels
from sdelab.evaluate import InMemory, ShardMismatch, Shards, TornShard, complete, draw, held_out_bits, held_out_rows
from sdelab.train import OneDevice, Preempted, WorkdirInUse

SDE = sdelab.VP()


class Recorder:
    """Work that notes which rows were asked for; the result is a function of their numbers."""

    def __init__(self):
        self.rows = []

    def __call__(self, rows):
        self.rows.append(rows.tolist())
        return {"square": jnp.asarray(rows) ** 2, "not counted": None}


def shards(folder, count=10, batch_size=4, **record):
    return Shards(folder, {"solver": "ddim", **record}, count, batch_size, name="output")


def done(parts, work):
    with parts:
        complete(parts, work, OneDevice())
        return parts.read("square")


def test_every_row_is_there_once_and_what_fills_up_the_devices_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(OneDevice, "shares", 3)  # so that neither a batch nor the last one fits
    work = Recorder()
    np.testing.assert_array_equal(done(shards(tmp_path), work), np.arange(10) ** 2)
    assert work.rows == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9], [8, 9, 9, 9, 9, 9]]  # one size: one program
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == [
        "00000-00003.npz",
        "00004-00007.npz",
        "00008-00009.npz",
    ]
    with InMemory(10, 4) as parts:
        complete(parts, work, OneDevice(), finish=lambda rows, arrays: {**arrays, "row": rows})
        np.testing.assert_array_equal(parts.read("row"), np.arange(10))
        np.testing.assert_array_equal(parts.read("square", 5), np.arange(5) ** 2)
        assert parts.read("not counted") is None


def test_only_what_is_missing_or_torn_is_made(tmp_path):
    done(shards(tmp_path), Recorder())
    whole = {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")}
    (tmp_path / "00000-00003.npz").unlink()
    (tmp_path / "00000-00003.npz.part").write_bytes(b"half")  # what a kill leaves
    flipped = bytearray(whole["00004-00007.npz"])
    flipped[len(flipped) // 3] ^= 1
    (tmp_path / "00004-00007.npz").write_bytes(flipped)
    work = Recorder()
    with pytest.warns(TornShard, match=r"00004-00007\.npz is torn"):
        done(shards(tmp_path), work)
    assert [rows[0] for rows in work.rows] == [0, 4]
    (tmp_path / "00008-00009.npz").write_bytes(whole["00008-00009.npz"][:100])
    with pytest.warns(TornShard, match=r"00008-00009\.npz is torn"):
        done(shards(tmp_path), Recorder())
    loaded = {path.name: np.load(path)["square"].tolist() for path in tmp_path.glob("*.npz")}
    assert loaded == {"00000-00003.npz": [0, 1, 4, 9], "00004-00007.npz": [16, 25, 36, 49], "00008-00009.npz": [64, 81]}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"count": 12}, "count: 10 in the folder, 12 now"),
        ({"batch_size": 5}, "batch: 4 in the folder, 5 now"),
        ({"solver": "heun", "seed": 1}, "seed: None in the folder, 1 now\n  solver: 'ddim' in the folder, 'heun' now"),
    ],
)
def test_other_settings_are_refused_with_what_differs(tmp_path, other, message):
    done(shards(tmp_path), Recorder())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ShardMismatch, match=f"output = {tmp_path} holds other shards") as error:
        done(shards(tmp_path, **other), Recorder())
    assert message in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_settings_that_cannot_be_done_are_not_recorded(tmp_path):
    def impossible(rows):
        raise ValueError("no such solver")

    with pytest.raises(ValueError, match="no such solver"):
        done(shards(tmp_path, solver="dimm"), impossible)
    done(shards(tmp_path), Recorder())


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ShardMismatch, match=r"it has thesis\.tex in it and no shards\.json"):
        done(shards(tmp_path), Recorder())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "shards.json").write_text(json.dumps([])[:1])
    with pytest.raises(ValueError, match=r"shards\.json is damaged"):
        done(shards(tmp_path), Recorder())


def test_two_do_not_write_to_one_folder(tmp_path):
    with shards(tmp_path), pytest.raises(WorkdirInUse, match="another process is writing shards in"):
        done(shards(tmp_path), Recorder())


def test_asked_to_stop_what_is_under_way_is_kept(tmp_path):
    work = Recorder()

    def interrupted(rows):
        if rows[0] == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return work(rows)

    with pytest.raises(Preempted, match="SIGTERM: what was done is kept; the same command goes on from there"):
        done(shards(tmp_path), interrupted)
    done(shards(tmp_path), work)
    assert [rows[0] for rows in work.rows] == [0, 4, 8]


def test_a_last_batch_is_no_other_program_and_draws_what_one_batch_draws():
    traces = []

    def score(x, t):
        traces.append(x.shape)
        return -x

    def drawn(batch_size):
        process = sdelab.ReverseSDE(SDE, score)
        settings = {"solver": solvers.EulerMaruyama(), "grid": grids.uniform(SDE, 3)}
        return draw(jax.random.key(0), process, (7, 2), batch_size=batch_size, **settings)

    x, info = drawn(3)
    compiled = len(traces)
    assert set(traces) == {(3, 2)}
    np.testing.assert_allclose(drawn(7)[0], x, rtol=1e-6)
    assert len(traces) == 2 * compiled
    np.testing.assert_array_equal(info.evaluations, np.full(7, 3))


def test_bits_in_batches_are_those_of_the_library():
    values = np.random.default_rng(0).integers(0, 16, (11, 2, 2, 1))
    dataset = Dataset("noise", values, values, GreyLevels(16))
    flow = sdelab.ProbabilityFlow(SDE, exact.Gaussian(jnp.zeros((2, 2, 1)), jnp.asarray(0.3)).score(SDE))
    solve = {"solver": diffrax.Heun(), "grid": np.array([1.0, 0.5, 0.1, 1e-3]), "rtol": None, "atol": None}
    rows = held_out_rows(dataset, 5)
    expected = sdelab.bits_per_dim(jax.random.key(1), flow, values[rows], levels=16, batch_size=2, **solve)
    with InMemory(5, 2) as parts:
        found = held_out_bits(jax.random.key(1), flow, dataset, 5, parts=parts, **solve)
    assert found["bits_per_dim_count"] == 5
    assert found["bits_per_dim"] == pytest.approx(expected.mean, rel=1e-6)
    assert found["bits_per_dim_error"] == pytest.approx(expected.standard_error, rel=1e-5)
