"""A small category on disk for the tests of this room."""

import numpy as np
import pytest


@pytest.fixture
def tree(put):
    """tree(folder) writes a category: 3 train, 2 good, 2 scratch with masks, 1 dent whose mask has the plain name."""

    def write(folder):
        mask = np.zeros((12, 16), np.uint8)
        mask[3:6, 4:9] = 255
        for name in ("10.png", "2.png", "1.PNG"):
            put(folder / "train" / "good" / name)
        for name in ("000.png", "001.png"):
            put(folder / "test" / "good" / name)
            put(folder / "test" / "scratch" / name)
            put(folder / "ground_truth" / "scratch" / name.replace(".", "_mask."), mask)
        put(folder / "test" / "dent" / "a.png")
        put(folder / "ground_truth" / "dent" / "a.png", mask)
        return folder

    return write
