"""Overlays: size, scale, outline."""

import numpy as np

from vitlite.images.heatmap import OUTLINE, colorize, outline, overlay, scale_map


def test_scale_is_fixed_and_clipped():
    values = np.array([[-1.0, 0.0, 5.0, 10.0, 99.0]])
    assert scale_map(values, 0, 10).tolist() == [[0, 0, 0.5, 1, 1]]
    assert np.isfinite(scale_map(values, 3, 3)).all()


def test_low_values_leave_the_image_alone():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(overlay(image, np.zeros((20, 30)), low=0, high=1, threshold=2), image)


def test_high_values_show_and_are_outlined():
    image = np.full((40, 40, 3), 128, np.uint8)
    values = np.zeros((40, 40))
    values[10:20, 10:20] = 1.0
    drawn = overlay(image, values, low=0, high=1, threshold=0.5)
    assert (drawn[10, 10:20] == OUTLINE).all()
    assert drawn[15, 15, 0] > drawn[15, 15, 2] + 50
    assert np.array_equal(drawn[30:], image[30:])


def test_colours_stay_in_range():
    colours = colorize(np.linspace(0, 1, 101)[None])
    assert colours.min() >= 0
    assert colours.max() <= 255
    assert np.abs(np.diff(colours, axis=1)).max() < 12


def test_outline_of_nothing_and_of_everything():
    assert not outline(np.zeros((5, 5), bool), 1).any()
    assert not outline(np.ones((5, 5), bool), 1).any()
