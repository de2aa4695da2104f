"""How small a defect can be and still be seen, and what data check says about the masks of a set."""

import numpy as np
import pytest

from vitlite import data
from vitlite.data.small import largest_region, smallest_seen
from vitlite.images.tiles import View

RNG = np.random.default_rng(0)


def test_the_largest_region_of_a_mask():
    mask = np.zeros((60, 90), bool)
    mask[5:8, 10:70] = True
    mask[40:44, 40:44] = True
    found = largest_region(mask)
    assert (found.area, found.width) == (180, 3)
    assert largest_region(np.zeros((4, 4), bool)) is None


def test_a_cell_in_pixels_of_the_image():
    assert smallest_seen(View(256), 8, (3000, 4000)) == (93.75, 125)
    assert smallest_seen(View(256, 512), 8, (3000, 4000)) == (16, 16)


@pytest.mark.parametrize(("width", "said"), [(12, "2 of 2 masks are smaller; tile=384 sees"), (150, "0 of 2 masks")])
def test_data_check_counts_masks_below_a_cell(tmp_path, put, width, said):
    image = RNG.integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    for i in range(2):
        put(tmp_path / f"plate/train/good/{i}.png", image + np.uint8(i))
        put(tmp_path / f"plate/test/scratch/{i}.png", image + np.uint8(3 + i))
        mask = np.zeros((900, 1200), np.uint8)
        mask[100 : 100 + width, 300 + i : 300 + i + 5 * width] = 255
        put(tmp_path / f"plate/ground_truth/scratch/{i}_mask.png", mask)
    put(tmp_path / "plate/test/good/0.png", image + np.uint8(9))
    text = data.check(tmp_path).text()
    line = next(line for line in text.splitlines() if line.startswith("small defects"))
    assert "images of 1200 x 900 pixels come to the network as 288 x 224" in line
    assert "smaller than 33 x 32 pixels is hardly seen" in line
    assert said in line
    assert "shape: images of 1200 x 900 (plate) are no squares; the presets paper and small, and dinomaly," in text


def test_nothing_is_said_about_small_images(tmp_path, put):
    for name in ("train/good/0", "test/good/0", "test/spot/0"):
        put(tmp_path / f"plate/{name}.png", RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8))
    put(
        tmp_path / "plate/ground_truth/spot/0_mask.png",
        np.pad(np.full((30, 30), 255, np.uint8), ((50, 120), (50, 120))),
    )
    assert "small defects" not in data.check(tmp_path).text()
