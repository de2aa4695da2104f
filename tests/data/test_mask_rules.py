"""One rule for the masks of a category: the same defects, however the masks store them, or a line that asks."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vitlite import data
from vitlite.errors import UserError

SIZE = (40, 60)
KINDS = 6


def shapes():
    """What each mask marks: blobs, a block at the edge, and a hair-thin line."""
    marks = []
    for i in range(KINDS):
        mark = np.zeros(SIZE, bool)
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        mark |= (y - 12) ** 2 + (x - 15 - 4 * i) ** 2 < 20 + 5 * i
        if i % 2:
            mark[30 + np.arange(8), 20 + 2 * np.arange(8)] = True
        if i == 4:
            mark[:5, -9:] = True
        marks.append(mark)
    return marks


MARKS = shapes()


def noisy(quality):
    """What JPEG makes of a mask, saved as PNG."""

    def save(mark, i, folder):
        grey(mark).save(folder / "x.jpg", quality=quality)
        return Image.open(folder / "x.jpg").copy()

    return save


def grey(mark, value=255):
    return Image.fromarray(np.uint8(mark) * np.uint8(value))


def palette(colours):
    def save(mark, i, _):
        image = Image.fromarray(np.uint8(mark) * np.uint8(i % 3 + 1), "P")
        image.putpalette([part for colour in colours for part in colour])
        return image

    return save


def rgba(colour, below=(0, 0, 0), alpha=(0, 255)):
    def save(mark, i, _):
        values = np.where(mark[..., None], np.array([*colour, alpha[1]]), np.array([*below, alpha[0]]))
        return Image.fromarray(values.astype(np.uint8), "RGBA")

    return save


def colour(colour, below=(0, 0, 0)):
    return lambda mark, i, _: Image.fromarray(np.where(mark[..., None], colour, below).astype(np.uint8))


def smooth(mark, sigma=0.7):
    values = ndimage.gaussian_filter(mark * 255.0, sigma)
    return Image.fromarray(np.where(mark, np.maximum(values, 128), np.minimum(values, 127)).astype(np.uint8))


def numbers(dtype, *values):
    return lambda mark, i, _: Image.fromarray(mark.astype(dtype) * dtype(values[i % len(values)]))


# What is stored: (how, extension, rule)
RULES = {
    "0 and 255": (lambda mark, i, _: grey(mark), "png", "0/255"),
    "0 and 1": (lambda mark, i, _: grey(mark, 1), "png", "0/1"),
    "0 and 100": (lambda mark, i, _: grey(mark, 100), "png", "0/100"),
    "1 bit": (lambda mark, i, _: Image.fromarray(mark), "png", "0/255"),
    "classes": (lambda mark, i, _: grey(mark, i % 3 + 1), "png", "classes 1, 2, 3"),
    "many classes": (numbers(np.uint8, *range(20, 26)), "bmp", "classes 20, 21, 22, 23, 24, 25"),
    "high and low classes": (numbers(np.uint8, 85, 170, 255), "png", "classes 85, 170, 255"),
    "one kind 0 and 1, one 0 and 255": (numbers(np.uint8, 1, 255), "png", "classes 1, 255"),
    "inverted": (lambda mark, i, _: grey(~mark), "png", "0/255, inverted: the lowest value is a defect"),
    "inverted 0 and 1": (lambda mark, i, _: grey(~mark, 1), "png", "0/1, inverted: the lowest value is a defect"),
    "inverted 1 bit": (
        lambda mark, i, _: Image.fromarray(~mark),
        "tif",
        "0/255, inverted: the lowest value is a defect",
    ),
    "grey": (lambda mark, i, _: smooth(mark), "png", "grey, above 127"),
    "grey, inverted": (
        lambda mark, i, _: Image.eval(smooth(mark), lambda v: 255 - v),
        "png",
        "grey, above 127, inverted: the lowest value is a defect",
    ),
    "jpeg": (lambda mark, i, _: grey(mark), "jpg", "grey, above 127"),
    "jpeg as png": (noisy(90), "png", "grey, above 127"),
    "fine jpeg as png": (noisy(98), "png", "grey, above 127"),
    "16 bits": (numbers(np.uint16, 65535), "png", "0/65535"),
    "12 in 16 bits": (numbers(np.uint16, 4095), "tif", "0/4095"),
    "classes in 16 bits": (numbers(np.uint16, 1, 2, 300), "png", "classes 1, 2, 300"),
    "float": (numbers(np.float32, 1), "tif", "0/255"),
    "red": (colour((255, 0, 0)), "png", "0/#ff0000"),
    "dark colours": (
        lambda mark, i, _: colour([(64, 0, 0), (0, 128, 0)][i % 2])(mark, i, _),
        "png",
        "colours #008000, #400000",
    ),
    "palette": (palette([(0, 0, 0), (128, 0, 0), (0, 128, 0), (64, 0, 0)]), "png", "colours #008000, #400000, #800000"),
    "palette without colours": (palette([(0, 0, 0)] * 4), "png", "palette indices classes 1, 2, 3"),
    "palette on white": (
        palette([(255,) * 3, (255, 0, 0), (0, 255, 0), (0, 0, 9)]),
        "png",
        "palette indices classes 1, 2, 3",
    ),
    "alpha, white": (rgba((255, 255, 255)), "png", "alpha"),
    "alpha, black": (rgba((0, 0, 0)), "png", "alpha"),
    "alpha, all white": (rgba((255, 255, 255), (255, 255, 255)), "png", "alpha"),
    "half transparent brush": (rgba((255, 0, 0), alpha=(0, 100)), "png", "alpha, 0/100"),
    "opaque": (rgba((255, 255, 255), alpha=(255, 255)), "png", "0/255"),
}


def category(folder, save, extension, put):
    for i, mark in enumerate(MARKS):
        put(folder / "test" / "dent" / f"{i}.png", np.full(SIZE, 90, np.uint8))
        path = folder / "ground_truth" / "dent" / f"{i}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(mark, i, folder).save(path)
    put(folder / "test" / "good" / "0.png", np.full(SIZE, 80, np.uint8))
    (folder / "x.jpg").unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("kind", RULES)
def test_the_same_defects_however_they_are_stored(tmp_path, put, caplog, kind):
    save, extension, rule = RULES[kind]
    root = category(tmp_path / "nut", save, extension, put)
    dataset = data.with_mask_rules(data.open_dataset(root, need_train=False))
    assert str(dataset.mask_rules["nut"]) == rule
    for sample, mark in zip((s for s in dataset.test if s.label), MARKS, strict=True):
        np.testing.assert_array_equal(data.read_mask(sample.mask), mark)
    assert caplog.messages == []
    report = data.check(root)
    assert (report.mask_rules, report.empty_masks, report.mask_doubts) == (dataset.mask_rules, [], [])


def half(mark):
    full = mark.copy()
    full[:, : 2 * SIZE[1] // 3] = True
    return full


UNCLEAR = {
    "good is not 0": (
        lambda mark, i, _: grey(mark + np.uint8(1), 1),
        "png",
        r"0\.png has values 1, 2, and no pixel of it",
    ),
    "classes as jpeg": (numbers(np.uint8, 40, 80, 120), "jpg", "nothing in it is above 127"),
    "large": (
        lambda mark, i, _: grey(half(mark)),
        "png",
        "marks more than half .* if black is the defect in it, invert",
    ),
    "one inverted": (
        lambda mark, i, _: grey(~mark if i == 3 else mark),
        "png",
        r"3\.png has values 0, 255, and it marks nearly all of its image, unlike others; if black is the defect in it",
    ),
    "classes as fine jpeg": (numbers(np.uint8, 1, 2, 3), "jpg", r"0\.jpg has .* nothing in it is above 127"),
    "void": (
        lambda mark, i, _: Image.fromarray(np.where(ndimage.binary_dilation(mark) & ~mark, 255, mark).astype(np.uint8)),
        "png",
        "has values 0, 1, 255, and its 255 may be a defect, or pixels to ignore",
    ),
    "faint among grey": (lambda mark, i, _: smooth(mark) if i else grey(mark, 90), "png", "0.png has values 0, 90"),
    "photograph": (
        lambda mark, i, _: Image.fromarray(np.random.default_rng(i).integers(0, 256, SIZE, np.uint8)),
        "png",
        "neither low nor high",
    ),
    "red on white, jpeg": (colour((255, 0, 0), (255, 255, 255)), "jpg", "marks more than half"),
    "signed": (numbers(np.int32, -1), "tif", None),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_what_cannot_be_told_is_asked(tmp_path, put, kind):
    save, extension, message = UNCLEAR[kind]
    root = category(tmp_path / "nut", save, extension, put)
    dataset = data.open_dataset(root, need_train=False)
    if message is None:  # no file can be read; whoever scores its image says so
        assert len(data.check(root).unreadable) == KINDS
        return
    with pytest.raises(UserError, match=message) as caught:
        data.with_mask_rules(dataset)
    line = str(caught.value)
    assert line.startswith("nut: the meaning of its masks is not clear: ground_truth/dent/")
    assert line.endswith(
        "give mask_threshold=N (a pixel above N is a defect), or save the masks with 0 for good and 255 for a defect"
    )
    assert data.check(root).mask_doubts == [caught.value.marked]
    given = data.with_mask_rules(dataset, 1)
    assert str(given.mask_rules["nut"]) == "above 1"


def test_masks_of_good_images_tell_what_is_inverted(tmp_path, put):
    for name, good, inverted in (("a", 255, True), ("b", 0, False)):
        root = category(tmp_path / name, lambda mark, i, _: grey(half(mark)), "png", put)
        put(root / "ground_truth" / "good" / "0.png", np.full(SIZE, good, np.uint8))
        dataset = data.with_mask_rules(data.open_dataset(root, need_train=False))
        assert dataset.mask_rules[name].inverted == inverted
        assert data.read_mask(dataset.test[0].mask).tolist() == (half(MARKS[0]) != inverted).tolist()


def test_each_category_has_its_own_rule(tmp_path, put):
    for name, kind in (("a", "classes"), ("b", "inverted"), ("c", "grey")):
        category(tmp_path / name, *RULES[kind][:2], put)
    dataset = data.with_mask_rules(data.open_dataset(tmp_path, "all", need_train=False))
    assert [str(rule)[:8] for _, rule in sorted(dataset.mask_rules.items())] == ["classes ", "0/255, i", "grey, ab"]


def test_masks_of_no_image_are_named(tmp_path, put, caplog):
    root = category(tmp_path / "nut", *RULES["grey"][:2], put)
    put(root / "ground_truth" / "dent" / "stray.png", np.zeros(SIZE, np.uint8))
    data.with_mask_rules(data.open_dataset(root, need_train=False))
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "1 mask is not used (no image has that name, or it has another mask): ground_truth/dent/stray.png",
    ]


def test_masks_that_cannot_be_read_do_not_hide_the_rule(tmp_path, put):
    root = category(tmp_path / "nut", *RULES["classes"][:2], put)
    (root / "ground_truth" / "dent" / "0.png").write_bytes(b"x")
    assert str(data.with_mask_rules(data.open_dataset(root, need_train=False)).mask_rules["nut"]) == "classes 1, 2, 3"
