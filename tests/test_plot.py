"""Pictures, read back pixel by pixel or by what they draw; no display is needed."""

import numpy as np
import pytest
from matplotlib import image as mpl_image

from sdelab import plot


def test_tiles_are_the_images_row_by_row():
    images = np.stack([np.full((2, 3, 1), value) for value in (-1.0, 1.0, 0.0)])
    canvas = plot.tile(images, columns=2, padding=1)
    assert canvas.shape == (2 * 3 + 1, 2 * 4 + 1, 3)
    assert np.all(canvas[1:3, 1:4] == 0)
    assert np.all(canvas[1:3, 5:8] == 255)
    assert np.all(canvas[4:6, 1:4] == 128)  # 127.5, rounded to even
    assert np.all(canvas[4:6, 5:8] == canvas[0, 0])  # no fourth image
    assert np.all(canvas[3] == canvas[0, 0])


def test_range_and_colours():
    image = np.array([[[[0.0, 0.5, 2.0]]]])
    canvas = plot.tile(image, low=0.0, high=1.0, padding=0)
    np.testing.assert_array_equal(canvas, [[[0, 128, 255]]])


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 8, 2), (0, 8, 8, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="accepted: \\(count, height, width, channels\\)"):
        plot.tile(np.zeros(shape))


def test_the_grid_reaches_the_file(tmp_path):
    images = np.linspace(-1.0, 1.0, 4)[:, None, None, None] * np.ones((4, 6, 6, 1))
    path = plot.save(plot.image_grid(images, columns=4, title="samples"), tmp_path / "new" / "grid.png")
    pixels = mpl_image.imread(path)[..., :3]
    height, width = pixels.shape[:2]
    for column, value in enumerate(np.linspace(0.0, 1.0, 4)):
        middle = pixels[int(height * 0.6), int(width * (column + 0.5) / 4)]
        np.testing.assert_allclose(middle, value, atol=0.02)


def test_the_filmstrip_shows_the_ends_and_the_times():
    times = np.linspace(1.0, 0.0, 101)
    states = np.broadcast_to(np.linspace(-1.0, 1.0, 101)[:, None, None, None, None], (101, 2, 4, 4, 1))
    figure = plot.filmstrip(times, states, frames=5)
    assert len(figure.axes) == 10
    assert [axes.get_title() for axes in figure.axes[:5]] == ["t = 1", "t = 0.75", "t = 0.5", "t = 0.25", "t = 0"]
    first, last = (figure.axes[i].images[0].get_array() for i in (0, 9))
    assert np.all(first == 0)
    assert np.all(last == 255)


def test_the_loss_curve_holds_every_row():
    rows = [{"step": 10 * i, "loss": 1.0 / i} for i in range(1, 41)]
    figure = plot.loss_curve(rows)
    raw, smooth = figure.axes[0].lines
    np.testing.assert_allclose(raw.get_xydata(), [[row["step"], row["loss"]] for row in rows])
    np.testing.assert_allclose(smooth.get_ydata()[20], np.mean([row["loss"] for row in rows[18:23]]))
    assert figure.axes[0].get_xlabel() == "step"
    assert figure.axes[0].get_yscale() == "log"


def test_scatter_draws_both_sets_in_one_plane():
    samples, data = np.random.default_rng(0).normal(size=(2, 30, 2))
    figure = plot.scatter(samples, reference=data)
    below, above = figure.axes[0].collections
    np.testing.assert_allclose(below.get_offsets(), data)
    np.testing.assert_allclose(above.get_offsets(), samples)
    with pytest.raises(ValueError, match=r"\(30, 3\)"):
        plot.scatter(np.zeros((30, 3)))


def test_the_loss_by_time_has_a_curve_for_the_first_and_the_last_row():
    rows = [{"step": 10 * i, "t": [1.0, 0.1], "loss": [0.1 / i, 0.9]} for i in range(1, 20)]
    axes = plot.loss_by_time(rows, curves=3).axes[0]
    assert [line.get_label() for line in axes.lines] == ["step 10", "step 100", "step 190"]
    np.testing.assert_allclose(axes.lines[-1].get_xydata(), [[1.0, 0.1 / 19], [0.1, 0.9]])
    with pytest.raises(ValueError, match="rows is empty"):
        plot.loss_by_time([])


def test_a_figure_becomes_pixels_and_pixels_a_file(tmp_path):
    canvas = plot.pixels(plot.image_grid(np.full((1, 4, 4, 1), -1.0)))
    assert canvas.dtype == np.uint8
    np.testing.assert_array_equal(canvas[canvas.shape[0] // 2, canvas.shape[1] // 2], 0)
    path = plot.save_pixels(canvas, tmp_path / "new" / "picture.part")
    np.testing.assert_array_equal(mpl_image.imread(path, format="png"), canvas / np.float32(255))
