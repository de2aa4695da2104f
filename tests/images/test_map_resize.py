"""Maps at the original size: torch's numbers, without torch."""

import numpy as np
import pytest
import torch

from vitlite.images.resize import map_at


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
