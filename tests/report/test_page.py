"""The page of a run, read back by a parser: everything is in it, nothing is loaded, and nothing in a name is taken for HTML."""

import base64
import html.parser
import json
import re

import numpy as np
import pytest

from sdelab import plot
from sdelab.report import read_run, render

EVIL = "<script>alert('&')</script>"
RECORD = {
    "config": {
        "seed": 3,
        "sde": {"name": "VP", "beta_max": 12.5},
        "model": {"name": EVIL},
        "data": {"name": "moons"},
        "optim": {"batch_size": 32},
        "run": {"steps": 400},
    },
    "versions": {"sdelab": "1.2.3", "nested": {"deep": "inside"}},
    "command": 'sdelab train --config "a & b"',
    "starts": [{"devices": {"TPU v5e": 4}}, {"devices": {"TPU v6e": 8}}],
}


class Reader(html.parser.HTMLParser):
    """What a browser would make of it: tags that are open, text, and all attributes. Errors: a tag that closes another."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def values(self, tag, name):
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


def write_run(workdir, steps=(100, 200, 300)):
    workdir.mkdir(exist_ok=True)
    (workdir / "record.json").write_text(json.dumps(RECORD))
    rows = [{"step": s, "loss": 1.0 / s, "grad_norm": 2.0, "lr": 1e-3, "images_per_second": 64.0} for s in steps]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 400, "lo')
    times = [{"step": s, "t": [1.0, 0.1, 0.01], "loss": [0.1, 0.5, 0.9]} for s in steps]
    (workdir / "loss_by_time.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times))
    for step in steps:
        plot.save_pixels(np.full((3, 3, 3), step % 256, np.uint8), workdir / "pictures" / "samples" / f"{step:08d}.png")
    (workdir / "evaluation.json").write_text(json.dumps({"bits_per_dim": 3.14159265, "solver": EVIL}))
    for step, files in ((200, ("manifest.json",)), (300, ())):
        (workdir / "checkpoints" / str(step)).mkdir(parents=True)
        for name in (*files, "state"):
            (workdir / "checkpoints" / str(step) / name).write_bytes(b"x" * 1_500_000)


def test_the_page_holds_the_run_and_nothing_from_elsewhere(tmp_path):
    write_run(tmp_path / "run")
    page = render(read_run(tmp_path / "run"))
    reader = Reader(page)
    text = "\n".join(reader.text)
    left = "0:00:50"  # 100 steps of 32 at 64 images a second
    for words in (
        EVIL,
        RECORD["command"],
        "12.5",
        "inside",
        "TPU v5e",
        "TPU v6e",
        "3.14159",
        "300 of 400",
        "9,600",
        left,
    ):
        assert words in text
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    sources = reader.values("img", "src")
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    pictures = [base64.b64decode(source.partition(",")[2]) for source in sources]
    samples = [path.read_bytes() for path in sorted((tmp_path / "run" / "pictures" / "samples").glob("*"))]
    assert {samples.index(png) for png in pictures if png in samples} == {0, 1, 2}
    assert all(png.startswith(b"\x89PNG") for png in pictures)
    assert len(pictures) == 3 + 1 + 4  # samples, the loss by time, and a curve for each metric
    assert "//" not in re.sub(r"data:image/png;base64,[^\"]*", "", page)  # no address, of whatever protocol
    assert text.index("complete") < text.index("not finished, or torn")
    assert "1.5 MB" in text


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    text = "\n".join(Reader(render(read_run(tmp_path))).text)
    assert "There is no row of metrics yet." in text
    assert "There is no checkpoint yet." in text
    assert "0 of 400" in text
    assert "Samples over training" not in text


def test_many_pictures_are_thinned_out_with_both_ends(tmp_path):
    write_run(tmp_path, steps=range(10, 400, 10))
    assert [*read_run(tmp_path, pictures=4).samples] == [10, 140, 260, 390]


def test_what_is_no_run_or_is_damaged_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no run in {tmp_path}: it has no record\.json and no checkpoints"):
        read_run(tmp_path)
    write_run(tmp_path)
    for name in ("evaluation.json", "metrics.jsonl", "record.json"):  # each is read before the one before
        (tmp_path / name).write_text("{\n{}\n")
        with pytest.raises(ValueError, match=rf"{name} is damaged"):
            read_run(tmp_path)
