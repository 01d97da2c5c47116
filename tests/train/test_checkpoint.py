"""Checkpoints come back to the bit, or are passed over; nothing of another run is touched."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.train import Best, CheckpointMismatch, Checkpoints, TornCheckpoint
from sdelab.train.checkpoint import best_sound_step, newest_sound_step, read_record, read_state, sound_step
from sdelab.train.manifest import find_damage
from sdelab.train.record import check_same_run


def state(step):
    return {
        "step": jnp.asarray(step, jnp.int32),
        "params": {"w": jnp.arange(6.0).reshape(2, 3) * step, "b": jnp.ones(())},
    }


def template():
    return state(0)


def accept(record):
    return None


@pytest.fixture
def folder(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (5, 10, 15):
            checkpoints.save(step, state(step), {"step": step, "config": {"sde": {"name": "VP"}}})
    return tmp_path / "checkpoints"


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_newest_comes_back_to_the_bit(folder):
    with Checkpoints(folder) as checkpoints:
        step, restored = checkpoints.restore(template(), accept)
    assert step == 15
    np.testing.assert_array_equal(restored["params"]["w"], state(15)["params"]["w"])
    assert restored["step"].dtype == jnp.int32
    assert read_record(newest_sound_step(folder))["config"] == {"sde": {"name": "VP"}}


def test_a_part_of_the_state_can_be_read_alone(folder):
    part = read_state(newest_sound_step(folder), {"params": {"w": jnp.zeros((2, 3))}})
    np.testing.assert_array_equal(part["params"]["w"], state(15)["params"]["w"])
    assert set(part) == {"params"}


def largest_file(folder):
    return max((folder / "15" / "state").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else -1)


def flip_a_bit(folder):
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder):
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[:-1])


def remove(folder):
    largest_file(folder).unlink()


def empty(folder):
    for path in (folder / "15").rglob("*"):
        if path.is_file():
            path.unlink()


def no_manifest(folder):
    (folder / "15" / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, remove, empty, no_manifest])
def test_a_torn_step_is_passed_over_set_aside_and_written_again(folder, damage):
    damage(folder)
    with Checkpoints(folder) as checkpoints:
        with pytest.warns(TornCheckpoint, match="checkpoint 15 is torn"):
            step, restored = checkpoints.restore(template(), accept)
        assert step == 10
        np.testing.assert_array_equal(restored["params"]["w"], state(10)["params"]["w"])
        assert (folder.parent / "checkpoints_torn" / "15.0").is_dir()
        checkpoints.save(15, state(15), {"step": 15})  # Orbax alone would skip it silently
    assert find_damage(folder / "15") is None
    assert newest_sound_step(folder).name == "15"


def test_a_reader_passes_a_torn_step_over_and_moves_nothing(folder):
    flip_a_bit(folder)
    before = snapshot(folder)
    with pytest.warns(TornCheckpoint, match="checkpoint 15"):
        assert newest_sound_step(folder).name == "10"
    assert snapshot(folder) == before


def test_another_run_is_refused_before_anything_is_touched(folder):
    flip_a_bit(folder)
    before = snapshot(folder.parent)
    ours = {"config": {"sde": {"name": "VP", "beta_max": 12.0}}, "data": {}}

    def check(found):
        check_same_run({"data": {}, **found}, ours)

    with Checkpoints(folder) as checkpoints, warnings.catch_warnings():
        warnings.simplefilter("ignore", TornCheckpoint)
        with pytest.raises(CheckpointMismatch, match=r"sde\.beta_max: None in the run, 12\.0 now"):
            checkpoints.restore(template(), check)
    assert snapshot(folder.parent) == before


def test_the_section_run_may_change_and_the_data_may_not():
    record = {"config": {"run": {"steps": 5}, "sde": {"name": "VP"}}, "data": {"sha256": "a"}, "versions": {"jax": "1"}}
    longer = record | {"config": {"run": {"steps": 9}, "sde": {"name": "VP"}}, "versions": {"jax": "2"}}
    check_same_run(record, longer)
    with pytest.raises(CheckpointMismatch, match=r"data\.sha256: 'a' in the run, 'b' now"):
        check_same_run(record, record | {"data": {"sha256": "b"}})


def test_all_torn_means_a_fresh_start_and_nothing_deleted(folder):
    for step in (5, 10, 15):
        (folder / str(step) / "manifest.json").unlink()
    with Checkpoints(folder) as checkpoints, pytest.warns(TornCheckpoint):
        assert checkpoints.restore(template(), accept) is None
    assert sorted(path.name for path in (folder.parent / "checkpoints_torn").iterdir()) == ["10.0", "15.0", "5.0"]


def test_what_a_kill_leaves_behind_is_no_checkpoint(folder):
    """Orbax's temporary folder of a save that did not end."""
    (folder / "20.orbax-checkpoint-tmp-1").mkdir()
    (folder / "20.orbax-checkpoint-tmp-1" / "half").write_text("x")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(template(), accept)[0] == 15
        checkpoints.save(20, state(20), {"step": 20})
    assert newest_sound_step(folder).name == "20"


def test_only_the_newest_are_kept(folder):
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(20, state(20), {"step": 20})
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ["15", "20"]
    with pytest.raises(ValueError, match="keep = 1"):
        Checkpoints(folder, keep=1)


def numbered(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_best_of_all_is_kept_beside_the_newest(tmp_path):
    """5 is the best until 20 is; 30 equals it, and is newer; 25 lies between two rows and has no loss."""
    losses = {5: 0.3, 10: 0.5, 15: 0.6, 20: 0.2, 25: None, 30: 0.2, 35: 0.4, 40: 0.9}
    kept = []
    with Checkpoints(tmp_path, keep=2, best=Best("loss")) as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(step, state(step), {"metrics": loss and {"loss": loss, "grad_norm": 1.0 / step}})
            checkpoints.finish()
            kept.append(numbered(tmp_path))
    assert kept[:5] == [[5], [5, 10], [5, 10, 15], [15, 20], [20, 25]]
    assert kept[5:] == [[25, 30], [30, 35], [30, 35, 40]]
    assert best_sound_step(tmp_path, "loss").name == "30"
    assert best_sound_step(tmp_path, "grad_norm").name == "40"
    with pytest.raises(FileNotFoundError, match=r"no sound checkpoint in .* has the metric 'accuracy'"):
        best_sound_step(tmp_path, "accuracy")


def test_the_checkpoint_of_a_step_can_be_asked_for(folder):
    assert sound_step(folder, 10).name == "10"
    with pytest.raises(ValueError, match=r"step = 12 is not accepted; checkpoints in .*: 5, 10, 15\."):
        sound_step(folder, 12)
    flip_a_bit(folder)
    with pytest.raises(
        ValueError, match=r"step = 15 is not accepted; the checkpoint is torn \(.*differs from its SHA-256"
    ):
        sound_step(folder, 15)


def test_what_is_donated_while_it_is_written_is_written_as_it_was(tmp_path):
    """The same bits as were there when `save` was called; the steps that follow take the buffers over."""
    update = jax.jit(lambda tree: jax.tree.map(lambda x: x * 1.5 + 1.0, tree), donate_argnums=0)
    carry = update({"w": jnp.arange(2.0**20), "b": jnp.ones(3)})
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            expected = jax.tree.map(lambda x: np.array(x, copy=True), carry)
            checkpoints.save(step, carry, {})
            for _ in range(5):
                carry = update(carry)
            checkpoints.finish()
            saved = read_state(tmp_path / str(step), expected)
            jax.tree.map(np.testing.assert_array_equal, saved, expected)


def test_what_a_deletion_left_behind_is_no_checkpoint_and_goes(folder):
    (folder / "5").rename(folder / ".removed.5")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(template(), accept)[0] == 15
        checkpoints.save(20, state(20), {"step": 20})
    assert {path.name for path in folder.iterdir()} == {"10", "15", "20"}


def test_a_checkpoint_that_cannot_be_written_is_an_error(folder, monkeypatch):
    import sdelab.train.checkpoint as module

    def full_disk(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_manifest", full_disk)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(20, state(20), {"step": 20})  # it returns before that is known
        with pytest.raises(OSError, match="No space") as caught:
            checkpoints.finish()
    assert "checkpoint 20 in" in caught.value.__notes__[0]
    with pytest.warns(TornCheckpoint, match="20"):
        assert newest_sound_step(folder).name == "15"


def test_what_fails_in_the_background_is_raised_by_the_next_call_once_and_on_leaving(folder, monkeypatch):
    """Orbax's own write fails: the folder that it would rename into place is gone."""

    def no_rename(self, *arguments, **settings):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("orbax.checkpoint._src.path.atomicity.AtomicRenameTemporaryPath.finalize", no_rename)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(20, state(20), {"step": 20})
        checkpoints._thread.submit(lambda: None).result()
        with pytest.raises(OSError, match="Input/output"):
            checkpoints.check()
        checkpoints.check()
    with pytest.raises(OSError, match="Input/output"), Checkpoints(folder) as checkpoints:
        checkpoints.save(20, state(20), {"step": 20})
    assert newest_sound_step(folder).name == "15"


def test_no_checkpoint_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no sound checkpoint"):
        newest_sound_step(tmp_path)


def test_the_manifest_covers_every_file(folder):
    listed = set(json.loads((folder / "15" / "manifest.json").read_text()))
    present = {str(p.relative_to(folder / "15")) for p in (folder / "15").rglob("*") if p.is_file()}
    assert listed == present - {"manifest.json"}
