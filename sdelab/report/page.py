"""The page of a run: what it is, what came of it so far, and how it went."""

import datetime
import importlib.resources
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sdelab import __version__, plot
from sdelab.report.markup import Markup, drawn, element, joined, picture, table
from sdelab.report.run_files import RunFiles

CURVES = {
    "loss": "training loss",
    "grad_norm": "norm of the gradient",
    "images_per_second": "images a second",
    "lr": "learning rate",
    "data_wait": "share of the time spent waiting for data",
}
"""Titles of the metrics that come first, and in this order."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing from elsewhere, and no scripts."""


def render(run: RunFiles) -> str:
    """The page, HTML with style and pictures in it: it loads nothing and runs nothing."""
    style = importlib.resources.files("sdelab.report").joinpath("style.css").read_text()
    title = f"{run.workdir.resolve().name}: {_words_of(run)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(style)),
    )
    sections = [_section(name, make(run)) for name, make in SECTIONS.items()]
    made = f"Written by sdelab {__version__} at {_time(datetime.datetime.now().timestamp())} from {run.workdir}."
    body = element("body", element("h1", title), *sections, element("footer", made))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _section(name: str, content: Markup) -> Markup:
    return element("section", element("h2", name), content) if content else Markup()


def _words_of(run: RunFiles) -> str:
    config = run.config
    names = [config.get(section, {}).get("name") for section in ("sde", "model", "data")]
    return ", ".join(str(name) for name in names if name)


def _summary(run: RunFiles) -> Markup:
    settings = run.config.get("run", {})
    steps, batch_size = settings.get("steps", run.step), run.config.get("optim", {}).get("batch_size", 0)
    rows: list[tuple[Any, ...]] = [("step", f"{run.step:,} of {steps:,}" + (", finished" if run.step >= steps else ""))]
    if batch_size:
        rows.append(("images seen", f"{run.step * batch_size:,}"))
    rates = [row["images_per_second"] for row in run.metrics[-10:] if row.get("images_per_second")]
    if rates:
        rate = float(np.median(rates))
        rows.append(("images a second", f"{rate:,.1f}"))
        if run.step < steps:
            rows.append(("time left at that rate", _duration((steps - run.step) * batch_size / rate)))
    if run.metrics:
        rows.append(("loss", f"{run.metrics[-1]['loss']:.4f}"))
    if run.written is not None:
        rows.append(("last row written", _time(run.written)))
    return joined(element("progress", value=min(run.step, steps), max=max(steps, 1)), table(rows))


def _samples(run: RunFiles) -> Markup:
    if not run.samples:
        return Markup()
    frames = [_frame(png, f"step {step:,}", f"samples of step {step}") for step, png in run.samples.items()]
    note = "Averaged weights, the same noise at every step."
    return joined(element("p", note), element("div", frames[-1], class_="latest"), _strip(frames[:-1]))


def _loss_by_time(run: RunFiles) -> Markup:
    if not run.loss_by_time:
        return Markup()
    note = "Denoising score matching of held-out data, averaged weights, the same examples and noise at every step."
    return joined(element("p", note), drawn(plot.loss_by_time(run.loss_by_time, title=""), "loss by time"))


def _curves(run: RunFiles) -> Markup:
    if not run.metrics:
        return element("p", "There is no row of metrics yet.")
    found = {name for row in run.metrics for name in row} - {"step"}
    names = [name for name in CURVES if name in found] + sorted(found - set(CURVES))
    figures = []
    for name in names:
        rows = [row for row in run.metrics if isinstance(row.get(name), int | float)]
        if rows:
            title = CURVES.get(name, name)
            figures.append(drawn(plot.metric_curve(rows, name, title=title, running_mean=name != "lr"), title))
    return element("div", *figures, class_="curves")


def _drawn(run: RunFiles) -> Markup:
    return _strip([_frame(png, name, name) for name, png in run.drawn.items()]) if run.drawn else Markup()


def _numbers(run: RunFiles) -> Markup:
    return joined(*(joined(element("h3", name), _tree(numbers)) for name, numbers in run.evaluations.items()))


def _checkpoints(run: RunFiles) -> Markup:
    rows = [
        (f"step {c.step:,}", _size(c.size), _time(c.written), "complete" if c.complete else "not finished, or torn")
        for c in run.checkpoints
    ]
    aside = element("p", f"Torn and set aside: {', '.join(run.set_aside)}.") if run.set_aside else Markup()
    kept = table(rows, ("", "size", "written", "state")) if rows else element("p", "There is no checkpoint yet.")
    return joined(kept, aside)


def _config(run: RunFiles) -> Markup:
    return element("div", _tree(run.config), class_="tree")


def _record(run: RunFiles) -> Markup:
    return element("div", _tree({k: v for k, v in run.record.items() if k != "config"}), class_="tree")


SECTIONS: dict[str, Callable[[RunFiles], Markup]] = {
    "Progress": _summary,
    "Samples over training": _samples,
    "Loss by time": _loss_by_time,
    "Curves": _curves,
    "Evaluation": _numbers,
    "Samples drawn afterwards": _drawn,
    "Checkpoints": _checkpoints,
    "Configuration": _config,
    "Record": _record,
}
"""The sections of the page, in order; one without content is left out."""


def _frame(png: bytes, caption: str, words: str) -> Markup:
    return element("figure", picture(png, words), element("figcaption", caption))


def _strip(frames: list[Markup]) -> Markup:
    return element("div", *frames, class_="strip") if frames else Markup()


def _tree(tree: Mapping[str, Any]) -> Markup:
    """A table, with tables in it where there are mappings, and lists of them."""
    return table([(name, _value(value)) for name, value in tree.items()])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _tree(value)
    if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        return joined(*(_value(entry) for entry in value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
