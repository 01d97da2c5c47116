"""The metrics file and the pictures after a kill, the TensorBoard events, the run of Weights & Biases, and the rate of examples."""

import io
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from sdelab.train import JsonLines, TensorBoard, read_json_lines
from sdelab.train.log import Log, PictureFiles
from sdelab.train.weights_and_biases import WeightsAndBiases

PIXELS = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


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


def test_tensorboard_events_hold_the_scalars_and_the_pictures(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with TensorBoard(tmp_path) as board:
        board.write(50, {"loss": 0.5})
        board.show(60, "samples", PIXELS)
    (path,) = tmp_path.iterdir()
    content, scalars = path.read_bytes(), []
    while content:  # TFRecord: 8 bytes of length, 4 of checksum, the event, 4 of checksum
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        scalars += [(event.step, value) for value in event.summary.value]
        content = content[16 + length :]
    (loss_step, loss), (step, picture) = scalars
    assert (loss_step, loss.tag, loss.simple_value) == (50, "loss", 0.5)
    assert (step, picture.tag) == (60, "samples")
    np.testing.assert_array_equal(Image.open(io.BytesIO(picture.image.encoded_image_string)).convert("RGB"), PIXELS)


def test_without_the_extra_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"sdelab\[tensorboard\]"):
        TensorBoard(tmp_path)
    with pytest.raises(ImportError, match=r"sdelab\[wandb\]"):
        WeightsAndBiases(tmp_path, {})


def test_pictures_are_files_and_a_resumed_run_drops_those_that_it_will_draw_again(tmp_path):
    with PictureFiles(tmp_path) as files:
        for step in (50, 100, 150):
            files.show(step, "samples", PIXELS)
    with PictureFiles(tmp_path, resume_step=100):
        paths = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert paths == ["samples/00000050.png", "samples/00000100.png"]
    np.testing.assert_array_equal(Image.open(tmp_path / paths[0]), PIXELS)


def stand_in(calls):
    """The part of W&B that is used, which notes what it is asked for."""
    run = types.SimpleNamespace(
        log=lambda row, step: calls.append((step, row)), finish=lambda exit_code: calls.append(("finish", exit_code))
    )

    def init(**settings):
        calls.append(settings)
        return run

    error = type("Error", (Exception,), {})
    return types.SimpleNamespace(init=init, Image=lambda pixels: pixels.shape, Settings=dict, Error=error)


def test_a_resumed_run_goes_on_in_the_same_run_of_weights_and_biases(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "wandb", stand_in(calls))
    with WeightsAndBiases(tmp_path, {"seed": 3}) as writer:
        writer.write(50, {"loss": 0.5})
        writer.show(50, "samples", PIXELS)
    with pytest.raises(KeyError), WeightsAndBiases(tmp_path, {"seed": 3}):
        raise KeyError
    first, row, picture, done, second, failed = calls
    assert (first["dir"], first["resume"], first["config"]) == (str(tmp_path), "allow", {"seed": 3})
    assert first["id"] == second["id"] == (tmp_path / "wandb_id").read_text()
    assert (row, picture) == ((50, {"loss": 0.5}), (50, {"samples": (3, 4, 3)}))
    assert (done, failed) == (("finish", 0), ("finish", 1))


def test_weights_and_biases_that_does_not_start_is_an_error_that_says_why(tmp_path, monkeypatch):
    module = stand_in([])

    def init(**settings):
        raise module.Error("No API key configured.")

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(ConnectionError, match=r"No API key configured\. Accepted: `wandb login`"):
        WeightsAndBiases(tmp_path, {})


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    """The client itself, where it is installed: two openings, one id, the picture in both."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for _ in range(2):
        with WeightsAndBiases(tmp_path, {"seed": 3}) as writer:
            writer.write(50, {"loss": 0.5})
            writer.show(50, "samples", PIXELS)
    runs = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(runs) == 2
    assert {name.rpartition("-")[2] for name in runs} == {(tmp_path / "wandb_id").read_text()}
    for path in (tmp_path / "wandb").rglob("samples*.png"):
        np.testing.assert_array_equal(Image.open(path).convert("RGB"), PIXELS)


def test_the_rate_leaves_out_what_is_no_training_and_the_bar_shows_it(tmp_path, monkeypatch):
    now, text = [0.0], io.StringIO()
    monkeypatch.setattr("sdelab.train.log.time.perf_counter", lambda: now[0])
    with tqdm(total=40, file=text, mininterval=0.0) as bar, JsonLines(tmp_path / "metrics.jsonl") as lines:
        log = Log([lines], bar, examples_per_step=32)
        log.advance(10)
        now[0] = 4.0
        with log.aside():
            now[0] = 100.0
        now[0] = 101.0
        log.write(10, {"loss": 0.25}, waited=1.25)
    row = {"step": 10, "loss": 0.25, "images_per_second": 64.0, "data_wait": 0.25}
    assert read_json_lines(tmp_path / "metrics.jsonl") == [row]
    assert "loss 0.2500, 64 images/s" in text.getvalue()
