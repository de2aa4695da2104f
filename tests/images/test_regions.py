"""Regions of interest from files: masks, polygons, folders by category, and what does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlite.errors import UserError
from vitlite.images.foreground import estimate_part
from vitlite.images.loading import as_seen
from vitlite.images.region_files import around_parts, load_regions, read_regions, refuse_others, save_regions
from vitlite.images.regions import Regions, box_of, level_outside, paint, shrink
from vitlite.images.resize import resize_image
from vitlite.images.scale import Reading
from vitlite.images.tiles import View
from vitlite.images.unusable import Unusable

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def mask(put, tmp_path):
    marked = np.zeros((40, 60), np.uint8)
    marked[10:30, 20:50] = 255
    return put(tmp_path / "roi.png", marked)


def test_a_mask_polygons_and_what_is_ignored(mask, tmp_path):
    inside = read_regions(mask, None, ["nut"]).inside(IMAGE, "a.png")
    assert inside[10:30, 20:50].all()
    assert inside.sum() == 600
    polygons = tmp_path / "roi.json"
    corners = [[20, 10], [49, 10], [49, 29], [20, 29]]
    polygons.write_text(json.dumps({"size": [60, 40], "polygons": [corners]}))
    assert np.array_equal(read_regions(polygons, None, ["nut"]).inside(IMAGE, "a.png"), inside)
    assert np.array_equal(read_regions(None, mask, ["nut"]).inside(IMAGE, "a.png"), ~inside)
    with pytest.raises(UserError, match="leaves nothing"):
        read_regions(mask, polygons, ["nut"])


def test_a_region_for_each_category(mask, tmp_path, put):
    names = ["nut", "cable"]
    put(tmp_path / "by" / "cable.png", np.asarray(Image.open(mask)))
    with pytest.raises(UserError, match=r"has no file for nut; give one for each category, or all.png"):
        read_regions(tmp_path / "by", None, names)
    put(tmp_path / "by" / "all.png", np.full((40, 60), 1, np.uint8))
    regions = read_regions(tmp_path / "by", None, names)
    assert regions.inside(IMAGE, Path("cable/test/a.png")).sum() == 600
    assert regions.inside(IMAGE, Path("nut/test/a.png")).all()
    assert regions.of("cable").inside(IMAGE, "image 0").sum() == 600
    with pytest.raises(Unusable, match=r"its category, and so its region \(roi, ignore\), is not known \(nut, cable\)"):
        regions.inside(IMAGE, "a.png")
    save_regions(regions, tmp_path / "run")
    again = load_regions(tmp_path / "run", names, auto=False)
    assert again.digest() == regions.digest() == Regions.from_json(json.loads(json.dumps(regions.as_json()))).digest()
    (tmp_path / "run" / "nut.png").unlink()
    with pytest.raises(UserError, match="has no region for nut, which this run was trained with"):
        load_regions(tmp_path / "run", names, auto=False)
    put(tmp_path / "by" / "bolt.png", np.full((40, 60), 255, np.uint8))
    with pytest.raises(UserError, match=r"bolt.png: not named after a category of the run \(nut\)"):
        read_regions(tmp_path / "by", None, ["nut"])


def test_what_does_not_fit_is_refused(mask, tmp_path, put):
    regions = read_regions(mask, None, ["nut"])
    with pytest.raises(Unusable, match=r"is 50x40, but its region \(roi, ignore\) is 60x40"):
        regions.inside(IMAGE[:, :50], "a.png")
    path = put(tmp_path / "b.png", IMAGE[:, :50])
    with pytest.raises(UserError, match="is 50x40"):
        refuse_others(regions, [mask, path])
    for given in ({"roi": str(mask)}, {"roi": "auto", "ignore": str(mask)}):
        says = rf"^{[*given][-1]}={mask}: is 60x40, but {path} is 50x40; give a mask of the size of the images$"
        with pytest.raises(UserError, match=says):
            refuse_others(regions, [mask, path], **given)
    with pytest.raises(UserError, match="marks nothing"):
        read_regions(put(tmp_path / "black.png", np.zeros((4, 4), np.uint8)), None, ["nut"])
    with pytest.raises(UserError, match="as in a photograph; give a mask of 0 and 255"):
        read_regions(put(tmp_path / "photo.png", IMAGE), None, ["nut"])
    for text in ("[", "{}", '{"size": [4, 4], "polygons": [[[0, 0], [1, 1]]]}', '{"size": [4, 4], "polygons": [[0]]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="not of the form"):
            read_regions(tmp_path / "bad.json", None, ["nut"])
    (tmp_path / "bad.json").write_text('{"size": [60, 40], "polygons": [[[0.1, 0.1], [0.9, 0.1], [0.9, 1]]]}')
    with pytest.raises(UserError, match="points are in pixels, not in parts of the size"):  # it would be one pixel
        read_regions(tmp_path / "bad.json", None, ["nut"])


def test_a_plain_background_is_left_out_by_itself():
    image = np.full((64, 64, 3), 240, np.uint8)
    image[20:44, 16:50] = IMAGE[:24, :34] // 2
    inside = read_regions("auto", None, ["nut"]).inside(image, "a.png")
    assert inside[22:42, 18:48].all()
    assert not inside[:12].any()


def test_what_looks_like_the_background_within_a_part_is_not_left_out():
    """Two bright ends of a part that is as dark as the background between them."""
    image = np.full((64, 64, 3), 10, np.uint8)
    image[20:44, 10:22] = image[24:40, 44:54] = 200
    assert not estimate_part(image)[30, 32]
    inside = read_regions("auto", None, ["nut"]).inside(image, "a.png")
    assert inside[30, 12:52].all()
    assert not inside[:16].any()
    assert not inside[21, 50]


def test_of_a_mask_the_box_around_it_is_seen(mask):
    reading = Reading(regions=read_regions(mask, None, ["nut"]))
    seen = as_seen(0, IMAGE, View(16), reading, Path("a.png"))
    assert np.array_equal(seen.pixels, resize_image(IMAGE[10:30, 20:50], (16, 16)))
    values = np.ones((16, 16), np.float32)
    values[8:] = 3
    full = seen.full(values)
    assert (full[24:30, 20:50] == 3).all()
    framed = seen.framed(np.stack([values, values, values / 2]))
    assert np.array_equal(framed[0, 10:30, 20:50], full[10:30, 20:50])
    assert framed.shape == (3, 40, 60)
    assert (framed[:, :10] == 0.5).all()
    full[20:30, 20:50] = 1
    assert (full == 1).mean() > 0.95  # outside is the lowest value inside; between the halves lie interpolated ones
    assert as_seen(0, IMAGE, View(16, 16), reading, Path("a.png")).pixels.shape == IMAGE.shape  # for tiles


def test_one_box_around_the_parts_of_all_images(tmp_path, put):
    paths = []
    for number, top in enumerate((20, 24)):
        image = np.full((64, 80, 3), 240, np.uint8)
        image[top : top + 20, 16:50] = IMAGE[:20, :34] // 2
        paths.append(put(tmp_path / f"{number}.png", image))
    auto = read_regions("auto", None, ["nut"])
    rows, columns = box_of(around_parts(auto, paths, Reading()).masks["all"])
    assert 16 <= rows.start <= 19
    assert 45 <= rows.stop <= 48
    assert 12 <= columns.start <= 15
    assert 51 <= columns.stop <= 54
    assert around_parts(auto, [*paths, put(tmp_path / "other.png", IMAGE)], Reading()) is auto  # of another size
    assert around_parts(auto, [put(tmp_path / "full.png", IMAGE)], Reading()) is auto  # no plain background


def test_what_is_outside_leaves_no_trace():
    inside = np.zeros((40, 60), bool)
    inside[10:30, 20:50] = True
    other = IMAGE.copy()
    other[~inside] = 7
    assert np.array_equal(paint(IMAGE, inside), paint(other, inside))
    assert (paint(IMAGE, inside)[~inside] == 128).all()
    other[~inside] = [7, 60, 9]
    other[0, 0] = 255
    assert (paint(other, inside, plain=True)[~inside] == [7, 60, 9]).all()  # a plain background keeps its colour
    values = level_outside(IMAGE[..., 0].astype(np.float32), inside)
    assert values[~inside].max() == values[inside].min()
    assert shrink(inside, (20, 30)).sum() == 150
    for sides in ((400, 600), (3000, 4000)):
        inside = np.zeros(sides, bool)
        inside[7, 9] = True
        assert shrink(inside, (32, 32)).sum() == 1  # however small, a region does not vanish
