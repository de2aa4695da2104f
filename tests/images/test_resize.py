"""Images in other sizes, and maps at the original size: torch's numbers, without torch."""

import numpy as np
import pytest
import torch

from vitlite.images.resize import map_at, resize_image

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def test_images_are_antialiased_and_shaped():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_image(stripes, (16, 24))
    assert small.shape == (16, 24, 3)
    assert small.dtype == np.uint8
    assert np.abs(resize_image(stripes, (16, 16))[:, 1:-1].astype(int) - 128).max() <= 8
    assert resize_image(RGB[:, :, 0], (5, 6)).shape == (5, 6)
    assert resize_image(RGB[::-1, ::2], (20, 20)).shape == (20, 20, 3)


def test_images_keep_flat_colours_and_range():
    assert (resize_image(np.full((31, 17, 3), 201, np.uint8), (256, 99)) == 201).all()
    same = resize_image(RGB, RGB.shape[:2])
    assert (same == RGB).all()
    assert same is not RGB


@pytest.mark.parametrize(
    ("image", "size"),
    [(RGB.astype(float), (4, 4)), (RGB[..., :2], (4, 4)), (RGB[0, 0], (4, 4)), (RGB, (0, 4)), (RGB[:0], (4, 4))],
)
def test_images_of_another_kind_are_refused(image, size):
    with pytest.raises(ValueError, match=r"image must be|cannot resize"):
        resize_image(image, size)


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [(64, 70, 50), (64, 40, 90), (256, 900, 900), (224, 3000, 17), (32, 31, 33), (7, 1, 1), (1, 5, 4), (16, 16, 16)],
)
def test_the_same_as_torch(size, height, width):
    pixels = np.random.default_rng(size).random((size, size), dtype=np.float32)
    got = map_at(pixels, height, width)
    tensor = torch.from_numpy(pixels)[None, None]
    want = torch.nn.functional.interpolate(tensor, size=(height, width), mode="bilinear", align_corners=False)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want[0, 0].numpy(), rtol=1e-6, atol=1e-7 * pixels.min())


def test_a_ramp_stays_a_ramp_with_half_pixel_centres():
    ramp = np.tile(np.arange(8, dtype=np.float32), (8, 1))
    wide = map_at(ramp, 8, 16)
    np.testing.assert_allclose(wide[0, 1:-1], np.arange(0.25, 7, 0.5), rtol=1e-6)
    assert wide[0, 0] == 0
    assert wide[0, -1] == 7


def test_the_result_is_a_copy():
    pixels = np.ones((4, 4), np.float32)
    map_at(pixels, 4, 4)[:] = 0
    assert pixels.all()
