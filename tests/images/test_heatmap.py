"""Overlays: size, scale, outline."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from vitlite.images import heatmap
from vitlite.images.heatmap import BAND, OUTLINE, colorize, outline, overlay, scale_map


def test_scale_is_fixed_and_clipped():
    values = np.array([[-1.0, 0.0, 5.0, 10.0, 99.0]])
    assert scale_map(values, 0, 10).tolist() == [[0, 0, 0.5, 1, 1]]
    assert np.isfinite(scale_map(values, 3, 3)).all()


def test_low_values_leave_the_image_alone():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(overlay(image, np.zeros((20, 30)), low=0, high=1, marked=np.zeros((20, 30), bool)), image)


def test_high_values_show_and_are_outlined():
    image = np.full((40, 40, 3), 128, np.uint8)
    values = np.zeros((40, 40))
    values[10:20, 10:20] = 1.0
    drawn = overlay(image, values, low=0, high=1, marked=values > 0.5)
    assert (drawn[10, 10:20] == OUTLINE).all()
    assert drawn[15, 15, 0] > drawn[15, 15, 2] + 50
    assert np.array_equal(drawn[30:], image[30:])


def test_colours_stay_in_range():
    colours = colorize(np.linspace(0, 1, 101)[None])
    assert colours.min() >= 0
    assert colours.max() <= 255
    assert np.abs(np.diff(colours, axis=1)).max() < 12


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_outline_is_what_an_erosion_of_the_whole_takes_away(width):
    region = np.zeros((40, 50), bool)
    region[3:20, 10:35] = region[18:33, 30:50] = region[5, 2] = True  # one part ends at the edge of the image
    eroded = ndimage.binary_erosion(region, iterations=width, border_value=1)
    assert np.array_equal(outline(region, width), region & ~eroded)


def test_outline_of_nothing_and_of_everything():
    assert not outline(np.zeros((5, 5), bool), 1).any()
    assert not outline(np.ones((5, 5), bool), 1).any()


@pytest.mark.parametrize("shape", [(5, 2 * BAND), (700, 901), (1300, 400)])
def test_bands_leave_no_trace(shape, monkeypatch):
    """Several bands give what one band gives, within 1 of the formula in float64, outline included."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
    values = ndimage.gaussian_filter(generator.random(shape, dtype=np.float32), 5)
    low, high, threshold = (float(q) for q in np.quantile(values, [0.3, 0.9, 0.6]))
    drawn = overlay(image, values, low=low, high=high, marked=values > threshold)
    level = scale_map(values, low, high).astype(np.float64)
    opacity = 0.75 * level[..., None]
    plain = np.clip(image * (1 - opacity) + colorize(level) * opacity + 0.5, 0, 255).astype(np.uint8)
    border = outline(values > threshold, max(1, round(min(shape) / 300)))
    assert border.any()
    assert (drawn[border] == OUTLINE).all()
    difference = np.abs(drawn[~border].astype(int) - plain[~border])
    assert difference.max() <= 1
    monkeypatch.setattr(heatmap, "BAND", image.size)
    assert np.array_equal(overlay(image, values, low=low, high=high, marked=values > threshold), drawn)


def test_an_overlay_takes_a_few_bytes_a_pixel():
    shape = (2000, 3000)
    image, values = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.float32)
    values[300:1700, 300:2700] = 1.0
    tracemalloc.start()
    try:
        overlay(image, values, low=0, high=1, marked=values > 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 9 * values.size  # with the map's 4 and what the file's writer takes, at most 16
