"""The threaded loader: order, batches, files that cannot be read."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlite.images import loading
from vitlite.images.archives import entry
from vitlite.images.loading import Unread, each, load_ahead, pixel_batches, readable_batches, skipping
from vitlite.images.reading import pixel_count


def stored(folder, count):
    for i in range(count):
        Image.fromarray(np.full((10 + i, 20, 3), i, np.uint8)).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir())


def test_batches_in_order_with_a_rest(tmp_path):
    paths = stored(tmp_path, 7)
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
    paths = stored(tmp_path, 4)
    paths[1].write_bytes(b"")
    unread, (batch, pixels) = pixel_batches(paths, 8, 8)
    assert [loaded.index for loaded in batch] == [0, 2, 3]
    assert len(pixels) == 3
    assert (unread.index, unread.path) == (1, paths[1])
    assert "01.png" in unread.reason
    (only,) = readable_batches(paths, 8, 8)
    assert [loaded.index for loaded in only.images] == [0, 2, 3]


def test_many_more_images_than_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "MOST_AHEAD", 2)
    paths = stored(tmp_path, 3) * 10
    assert [loaded.index for loaded in load_ahead(paths, 4, workers=3)] == list(range(30))


def begun(monkeypatch, paths, taken, **options):
    """How many images are given to the threads by the time that so many have been taken."""
    given = []

    class Pool(ThreadPoolExecutor):
        def submit(self, *args):
            given.append(args)
            return super().submit(*args)

    monkeypatch.setattr(loading, "ThreadPoolExecutor", Pool)
    loader = load_ahead(paths, 4, **options)
    for _ in range(taken):
        next(loader)
    loader.close()
    return len(given)


def test_of_many_files_with_one_reason_the_first_are_named(caplog):
    """Numbers in a reason, and the names of files, make no other reason."""
    said = ["a.png: is empty", *(f"{n}.png: {n} pixels, over the limit of 4" for n in range(5, 10)), "z.png: is cut"]
    unread = [Unread(i, Path(line.partition(":")[0]), line) for i, line in enumerate(said)]
    assert list(skipping([*unread, "image"], logging.getLogger("vitlite"))) == ["image"]
    named = [f"skipped {line}" for line in [*said[:4], said[-1]]]
    assert caplog.messages == [*named, "skipped 2 more, for the same reason as 5.png"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 12),  # no originals are kept
        ({"keep_original": True}, 2 + 3),
        ({"keep_original": True, "least": 6}, 2 + 6),
    ],
)
def test_large_originals_wait_in_small_numbers(tmp_path, monkeypatch, options, expected):
    """Images of 200 pixels each, where 700 may wait: what is taken, and those after it, less the last one taken."""
    monkeypatch.setattr(loading, "PIXELS_AHEAD", 700)
    paths = stored(tmp_path, 1) * 12
    assert begun(monkeypatch, paths, 3, **options) == expected


def test_originals_over_the_limit_still_come_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "PIXELS_AHEAD", 10)
    paths = [*stored(tmp_path, 3), tmp_path / "gone.png"]
    *batches, unread, last = pixel_batches(paths, 4, 2, keep_original=True)
    assert [loaded.index for batch, _ in [*batches, last] for loaded in batch] == [0, 1, 2]
    assert unread.index == 3
    assert begun(monkeypatch, paths, 2, keep_original=True) == 2


def test_the_pixels_of_an_image_by_its_header(tmp_path):
    (path,) = stored(tmp_path, 1)
    assert pixel_count(path) == 200
    path.write_bytes(path.read_bytes()[:60])  # the header is whole
    assert pixel_count(path) == 200
    (tmp_path / "text.png").write_text("none")
    archive = tmp_path / "images-idx3-ubyte"
    archive.write_bytes(b"")
    for other in (tmp_path, tmp_path / "gone.png", tmp_path / "text.png", "zero\0byte", entry(archive, 0)):
        assert pixel_count(other) == 0


def test_what_is_given_up_waits_for_no_thread():
    """The garbage collector may end a generator while its thread holds a lock that the other threads wait for."""
    free, begun, waited = threading.Event(), threading.Event(), []

    def decode(item):
        if item:
            begun.set()
            waited.append(free.wait(20))
        return item

    found = each(decode, range(100))
    assert next(found) == 0
    assert begun.wait(60)
    found.close()
    assert not waited
    free.set()
