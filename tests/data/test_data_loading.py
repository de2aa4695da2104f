"""The threaded loader: order, batches, files that cannot be read."""

import numpy as np
from PIL import Image

from vitlite.data.loading import load_ahead, pixel_batches


def pictures(folder, count):
    for i in range(count):
        Image.fromarray(np.full((10 + i, 20, 3), i, np.uint8)).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir())


def test_batches_in_order_with_a_rest(tmp_path):
    paths = pictures(tmp_path, 7)
    found = list(pixel_batches(paths, 8, 3, keep_original=True))
    assert [len(batch) for batch, _ in found] == [3, 3, 1]
    assert [loaded.index for batch, _ in found for loaded in batch] == list(range(7))
    for batch, pixels in found:
        assert pixels.shape == (len(batch), 8, 8, 3)
        assert pixels.dtype == np.uint8
        for loaded, values in zip(batch, pixels):
            assert (values == loaded.index).all()
            assert loaded.original.shape == (loaded.height, loaded.width, 3) == (10 + loaded.index, 20, 3)


def test_unreadable_files_are_named_and_the_rest_goes_on(tmp_path):
    paths = pictures(tmp_path, 4)
    paths[1].write_bytes(b"")
    bad = []
    (batch, pixels), *more = pixel_batches(paths, 8, 8, bad=bad)
    assert not more
    assert [loaded.index for loaded in batch] == [0, 2, 3]
    assert len(pixels) == 3
    assert [(index, path) for index, path, _ in bad] == [(1, paths[1])]
    assert "01.png" in bad[0][2]


def test_many_more_pictures_than_are_held(tmp_path):
    paths = pictures(tmp_path, 3) * 10
    assert [loaded.index for loaded in load_ahead(paths, 4, ahead=2, workers=3)] == list(range(30))
