"""The metrics file after a kill, and the TensorBoard events."""

import json

import pytest

from sdelab.train import JsonLines, TensorBoard, read_json_lines


def test_rows_are_on_disk_before_the_file_is_closed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with JsonLines(path) as lines:
        lines.write(50, {"loss": 0.5})
        assert read_json_lines(path) == [{"step": 50, "loss": 0.5}]


def test_a_resumed_run_drops_the_rows_it_will_write_again_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": s, "loss": 1.0 / s} for s in (50, 100, 150)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 200, "lo')
    assert read_json_lines(path) == rows
    with JsonLines(path, resume_step=100) as lines:
        lines.write(150, {"loss": 7.0})
    assert read_json_lines(path) == [*rows[:2], {"step": 150, "loss": 7.0}]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match="Unterminated"):
        read_json_lines(path)


def test_nan_is_not_written_as_json(tmp_path):
    with JsonLines(tmp_path / "metrics.jsonl") as lines, pytest.raises(ValueError, match="not JSON compliant"):
        lines.write(1, {"loss": float("nan")})


def test_tensorboard_events_hold_the_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with TensorBoard(tmp_path) as board:
        board.write(50, {"loss": 0.5})
    (path,) = tmp_path.iterdir()
    content, scalars = path.read_bytes(), []
    while content:  # TFRecord: 8 bytes of length, 4 of checksum, the event, 4 of checksum
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[16 + length :]
    assert scalars == [(50, "loss", 0.5)]


def test_without_the_extra_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"sdelab\[tensorboard\]"):
        TensorBoard(tmp_path)
