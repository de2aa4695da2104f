"""What a network sees of an image: tiles that cover it, at one scale, and one map from theirs."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vitlite.images.loading import pixel_batches
from vitlite.images.resize import resize_image
from vitlite.images.tiles import Blend, View

RNG = np.random.default_rng(0)


def tiles_of(view, seen):
    places = view.places(*seen.shape[:2])
    return places, np.concatenate(list(view.batches(seen, places, 4)))


@pytest.mark.parametrize("shape", [(40, 70), (16, 16), (17, 100), (9, 33), (3, 5)])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.7])
def test_tiles_cover_the_image_and_overlap(shape, overlap):
    view, seen = View(16, 16, overlap), RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    places, tiles = tiles_of(view, seen)
    covered = np.zeros(shape, int)
    for (top, left), tile in zip(places, tiles):
        part = seen[top : top + 16, left : left + 16]
        assert np.array_equal(tile[: len(part), : part.shape[1]], part)
        covered[top : top + 16, left : left + 16] += 1
    assert covered.min() >= 1
    assert len(set(places)) == len(places)
    for axis in (0, 1):
        starts = sorted({place[axis] for place in places})
        assert all(b - a <= max(1, 16 * (1 - overlap)) + 1 for a, b in zip(starts, starts[1:]))
        assert starts[0] == 0
        assert starts[-1] == max(0, shape[axis] - 16)


def test_maps_are_blended_without_seams():
    """A plane comes back whole, and tiles that disagree by a constant make no step."""
    view, shape = View(32, 32), (80, 130)
    plane = np.add.outer(np.arange(80), 2 * np.arange(130)).astype(np.float32)
    places = view.places(*shape)
    blend, levels = Blend(view, *shape, places), Blend(view, *shape, places)
    for i, (top, left) in enumerate(places):
        blend.add(plane[top : top + 32, left : left + 32])
        levels.add(np.full((32, 32), float(i % 2), np.float32))
    assert np.allclose(blend.map, plane, rtol=1e-5, atol=1e-4)
    assert levels.map.min() >= 0
    assert levels.map.max() <= 1
    assert levels.map.std() > 0.2
    assert max(np.abs(np.diff(levels.map, axis=axis)).max() for axis in (0, 1)) < 0.2


@pytest.mark.parametrize("size", [16, (16, 24)])
def test_images_and_maps_of_tiles_are_stitched(size):
    view, seen = View(size, 16), RNG.integers(0, 256, (50, 61, 3), dtype=np.uint8)
    found = view.stitch(seen, lambda tiles: {"image": tiles.transpose(0, 3, 1, 2), "red": tiles[..., 0]}, 3)
    assert np.allclose(found["image"], seen.transpose(2, 0, 1), rtol=1e-4)
    assert np.array_equal(found["red"], found["image"][0])


def test_the_score_is_the_highest_of_the_tiles_whatever_the_batch():
    view, seen = View(16, 16), RNG.integers(0, 200, (50, 61, 3), dtype=np.uint8)
    seen[33, 44] = 255

    def score_pixels(tiles):
        maps = tiles[..., 0].astype(np.float32)
        return maps, maps.max((1, 2))

    values, score = view.score(seen, score_pixels, 3)
    assert score == 255
    assert np.unravel_index(values.argmax(), values.shape) == (33, 44)
    assert np.allclose(values, seen[..., 0], rtol=1e-5)
    again, same = view.score(seen, score_pixels, 100)
    assert np.array_equal(values, again)
    assert score == same


def test_a_scale_and_files(tmp_path):
    image = RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    view = View(16, 32)
    assert view.shape(60, 90) == (30, 45)
    assert np.array_equal(view.see(image), resize_image(image, (30, 45)))
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, side in zip(paths, (90, 50, 10)):
        Image.fromarray(image[:, :side]).save(path)
    batches = list(pixel_batches(paths, view, 8))
    assert [batch.pixels.shape for batch in batches] == [(1, 30, 45, 3), (1, 30, 25, 3), (1, 30, 5, 3)]
    assert View(16).shape(60, 90) == (16, 16)
    assert View(16).places(16, 16) == [(0, 0)]


def test_tiles_outside_a_region_are_left_out():
    view, inside = View(16, 16), np.zeros((64, 100), bool)
    inside[20:30, 70:90] = True
    places = view.places(64, 100, inside)
    assert 0 < len(places) < len(view.places(64, 100)) / 2
    covered = np.zeros_like(inside)
    for top, left in places:
        assert inside[top : top + 16, left : left + 16].any()
        covered[top : top + 16, left : left + 16] = True
    assert covered[inside].all()
    blend = Blend(view, 64, 100, places)
    for _ in places:
        blend.add(np.ones((16, 16), np.float32))
    assert np.allclose(blend.map[inside], 1, rtol=1e-5)


def test_memory_does_not_grow_with_the_image():
    view, beside = View(128, 128), []
    for side in (512, 1536):
        seen = np.zeros((side, side, 3), np.uint8)
        tracemalloc.start()
        values, _ = view.score(seen, lambda tiles: (np.ones(tiles.shape[:3], np.float32), np.ones(len(tiles))), 8)
        beside.append(tracemalloc.get_traced_memory()[1] - values.nbytes)
        tracemalloc.stop()
    assert beside[1] < 1.5 * beside[0]
