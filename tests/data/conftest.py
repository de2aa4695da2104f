"""Small data sets on disk for the tests of this room."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def put():
    """put(path, array=None, **save options) writes a picture and its folders; by default each path gets another one."""

    def write(path, array=None, mode=None, **options):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if array is None:
            seed = [b for part in path.parts[-3:] for b in os.fsencode(part)]
            array = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array))
        (picture.convert(mode) if mode else picture).save(path, **options)
        return path

    return write


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
