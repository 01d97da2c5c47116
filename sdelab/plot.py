"""Pictures: every function returns a `matplotlib.figure.Figure` that belongs to no window, so none needs a display."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

Values = Float[Array, "..."] | Float[np.ndarray, "..."]

INK, ACCENT, MUTED = "#22223b", "#2a6f97", "#adb5bd"


def tile(
    images: Values, *, columns: int | None = None, low: float = -1.0, high: float = 1.0, padding: int = 1
) -> np.ndarray:
    """Images `(count, height, width, channels)` as one array `(rows, columns, 3)` of uint8, row by row.

    `low` is black and `high` white; `padding` pixels of light grey separate and surround the tiles, and fill the
    places without an image. Grey images become RGB.
    Errors: another shape, or channels other than 1 and 3.
    """
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(
            f"images have shape {images.shape}; accepted: (count, height, width, channels) with 1 or 3 channels."
        )
    count, height, width, _ = images.shape
    across = min(count, columns or int(np.ceil(np.sqrt(count))))
    rows = -(-count // across)
    levels = np.clip((images - low) / (high - low), 0.0, 1.0)
    canvas = np.full((rows * (height + padding) + padding, across * (width + padding) + padding, 3), 232, np.uint8)
    for number, image in enumerate(np.rint(255.0 * levels).astype(np.uint8)):
        top = padding + (number // across) * (height + padding)
        left = padding + (number % across) * (width + padding)
        canvas[top : top + height, left : left + width] = image
    return canvas


def image_grid(
    images: Values, *, columns: int | None = None, low: float = -1.0, high: float = 1.0, title: str = ""
) -> Figure:
    """A grid of images `(count, height, width, channels)`; see `tile`."""
    canvas = tile(images, columns=columns, low=low, high=high)
    rows, width = canvas.shape[:2]
    figure = Figure(figsize=(6.0, 6.0 * rows / width + (0.4 if title else 0.0)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _show(axes, canvas)
    axes.set_title(title, color=INK, fontsize=11)
    return figure


def filmstrip(
    times: Values, states: Values, *, frames: int = 10, low: float = -1.0, high: float = 1.0, title: str = ""
) -> Figure:
    """Some samples on their way from noise to data: one row a sample, one column a time.

    `times` is `(steps + 1,)`, `states` `(steps + 1, count, height, width, channels)`, both in the order of sampling;
    `frames` times are shown, the first and the last among them.
    """
    times, states = np.asarray(times), np.asarray(states)
    shown = np.unique(np.linspace(0, len(times) - 1, frames).round().astype(int))
    count = states.shape[1]
    figure = Figure(figsize=(0.9 * len(shown), 0.9 * count + 0.5), dpi=150, layout="constrained")
    grid = figure.subplots(count, len(shown), squeeze=False)
    for column, index in enumerate(shown):
        grid[0, column].set_title(f"t = {times[index]:.3g}", fontsize=8, color=INK)
        for row in range(count):
            frame = states[index, row][None]
            spread = max(1.0, float(np.std(frame)) / (0.5 * (high - low)))  # noise of a large sigma fits the greys
            middle = 0.5 * (low + high)
            _show(grid[row, column], tile(middle + (frame - middle) / spread, low=low, high=high, padding=0))
    figure.suptitle(title, color=INK, fontsize=11)
    return figure


def loss_curve(rows: Sequence[Mapping[str, Any]], *, title: str = "training loss") -> Figure:
    """The loss against the step, from rows `{"step": ..., "loss": ...}` such as `metrics.jsonl` holds."""
    return metric_curve(rows, "loss", title=title)


def metric_curve(rows: Sequence[Mapping[str, Any]], name: str, *, title: str = "", running_mean: bool = True) -> Figure:
    """One metric against the step, from rows `{"step": ..., name: ...}`, and its running mean unless it has no scatter.

    Logarithmic where the values are positive and span more than a factor of ten.
    """
    steps, values = np.array([row["step"] for row in rows]), np.array([row[name] for row in rows])
    figure = Figure(figsize=(6.0, 3.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    if running_mean:
        axes.plot(steps, values, color=MUTED, linewidth=0.8, label="mean between rows")
        axes.plot(steps, _smooth(values), color=ACCENT, linewidth=1.6, label="running mean")
        axes.legend(frameon=False, fontsize=8)
    else:
        axes.plot(steps, values, color=ACCENT, linewidth=1.6)
    if len(values) and np.all(values > 0) and np.max(values) > 10.0 * np.min(values):
        axes.set_yscale("log")
    _label(axes, "step", name, title)
    return figure


def loss_by_time(rows: Sequence[Mapping[str, Any]], *, curves: int = 6, title: str = "loss by time") -> Figure:
    """The loss against t, one curve for a row `{"step": ..., "t": [...], "loss": [...]}` such as `loss_by_time.jsonl` holds.

    At most `curves` >= 2 of the rows are drawn, the first and the last among them, the later the darker. Errors: no rows.
    """
    if not rows:
        raise ValueError("rows is empty; accepted: one row or more.")
    shown = np.unique(np.linspace(0, len(rows) - 1, curves).round().astype(int))
    figure = Figure(figsize=(6.0, 3.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("age", [MUTED, ACCENT, INK])
    for place, index in zip(np.linspace(0.0, 1.0, len(shown)), shown, strict=True):
        row = rows[index]
        colour = colours(1.0 if len(shown) == 1 else place)
        axes.plot(row["t"], row["loss"], color=colour, linewidth=1.4, marker=".", label=f"step {row['step']}")
    axes.set_xscale("log")
    if all(loss > 0 for index in shown for loss in rows[index]["loss"]):
        axes.set_yscale("log")
    _label(axes, "t", "loss", title)
    axes.legend(frameon=False, fontsize=8)
    return figure


def scatter(
    samples: Values, *, reference: Values | None = None, title: str = "", names: tuple[str, str] = ("samples", "data")
) -> Figure:
    """Points in the plane, `(count, 2)`, over a reference set if there is one."""
    figure = Figure(figsize=(4.5, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    if reference is not None:
        axes.scatter(*_plane(reference), s=3, color=MUTED, linewidths=0, label=names[1])
    axes.scatter(*_plane(samples), s=3, color=ACCENT, linewidths=0, alpha=0.7, label=names[0])
    axes.set_aspect("equal")
    _label(axes, "$x_1$", "$x_2$", title)
    axes.legend(frameon=False, fontsize=8, markerscale=3)
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """The picture as an array `(height, width, 3)` of uint8, such as `tile` gives."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_pixels(pixels: np.ndarray, path: Path | str) -> Path:
    """Writes an array `(height, width, 3)` of uint8 as PNG, whatever the path's suffix; makes the folder if it is not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def save(figure: Figure, path: Path | str) -> Path:
    """Writes the figure in the format of the path's suffix; makes the folder if it is not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _plane(points: Values) -> Iterable[np.ndarray]:
    array = np.asarray(points)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"points have shape {array.shape}; accepted: (count, 2).")
    return array.T


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a tenth of the curve, shorter at the ends."""
    half = max(1, len(values) // 20)
    return np.array([np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def _show(axes: Axes, canvas: np.ndarray) -> None:
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.set_title(title, color=INK, fontsize=11)
    axes.grid(color="#e9ecef", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
