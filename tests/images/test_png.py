"""The writer of PNG files: what Pillow reads from them is what was written."""

import io

import numpy as np
import pytest
from PIL import Image

from vitlite.images.png import BAND, write_png


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 9), (40, 31), (3, BAND), (1201, 500)])
def test_what_is_written_is_read(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pixels[: shape[0] // 2] //= 64
    for array in (pixels, pixels[::-1, ::-1]):
        file = io.BytesIO()
        write_png(file, array)
        file.seek(0)
        image = Image.open(file)
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), array)
