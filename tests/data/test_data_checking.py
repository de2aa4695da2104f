"""The report on a data set: each problem is found, named and counted."""

import numpy as np
import pytest
from PIL import Image

from vitlite import data
from vitlite.errors import UserError


def test_a_clean_set(tmp_path, tree):
    tree(tmp_path / "nut")
    report = data.check(tmp_path)
    assert report.clean
    assert report.problems() == []
    assert report.counts == {"nut": {"train": {"good": 3}, "test": {"dent": 1, "good": 2, "scratch": 2}}}
    assert report.heights == {"nut": (12, 12)}
    assert report.widths == {"nut": (16, 16)}
    assert report.modes == {"nut": {"RGB": 8}}
    assert report.masks == 3
    assert "no problems found" in report.text()


def test_training_images_of_several_depths_and_colours(tmp_path, put):
    ramp = np.arange(192).reshape(12, 16)
    for number in range(12):
        put(tmp_path / "depths" / f"{number}.png", (ramp * (21 if number % 2 else 340)).astype(np.uint16))
        grey, few = np.stack([ramp] * 3, axis=2), number % 4
        put(tmp_path / "more_colour" / f"{number}.png", (grey if not few else grey // (1, 2, 3)).astype(np.uint8))
        put(tmp_path / "more_grey" / f"{number}.png", (grey if few else grey // (1, 2, 3)).astype(np.uint8))
    for name, line in {
        "depths": "6 images of which the scale of the training images leaves next to nothing: 1.png, 3.png, 5.png, ",
        "more_colour": "3 training images in grey, among others in colour: 0.png, 4.png, 8.png",
        "more_grey": "3 training images in colour, among others in grey: 0.png, 4.png, 8.png",
    }.items():
        (found,) = [line for line in data.check(tmp_path / name).problems() if "identical" not in line]
        assert found.startswith(line)


def test_every_problem_is_found(tmp_path, tree, put):
    root = tree(tmp_path / "nut")
    truth = root / "ground_truth"
    mask = np.zeros((12, 16), np.uint8)
    mask[2:5, 2:5] = 255
    (root / "train" / "good" / "bad.png").write_bytes(b"")
    put(root / "test" / "dent" / "nomask.png")
    put(truth / "dent" / "stray_mask.png", mask)
    put(truth / "oldkind" / "x_mask.png", mask)
    for name, values in {
        "empty": mask * 0,
        "faint": mask // 100,
        "grey": np.where(mask > 0, np.arange(192).reshape(12, 16) % 90 + 130, 0).astype(np.uint8),
        "small": mask[:8, :8],
    }.items():
        put(root / "test" / "dent" / f"{name}.png")
        put(truth / "dent" / f"{name}_mask.png", values)
    put(root / "test" / "dent" / "brokenmask.png")
    (truth / "dent" / "brokenmask_mask.png").write_bytes(b"x")
    put(truth / "good" / "000_mask.png", mask)
    put(truth / "good" / "001_mask.png", mask * 0)
    put(root / "train" / "good" / "flat.png", np.full((12, 16), 7, np.uint8))
    put(root / "train" / "good" / "wide.png", np.arange(192, dtype=np.uint16).reshape(12, 16) * 20)
    twice = (root / "train" / "good" / "2.png").read_bytes()
    (root / "train" / "good" / "20.png").write_bytes(twice)
    leaked = (root / "test" / "good" / "000.png").read_bytes()
    (root / "train" / "good" / "leak.png").write_bytes(leaked)

    report = data.check(root, mask_threshold=127)
    names = {
        key: sorted(path.name for path in getattr(report, key))
        for key in report.__dataclass_fields__
        if (key.endswith("masks") and key != "masks") or key in ("marked_good", "flat")
    }
    assert names == {
        "missing_masks": ["nomask.png"],
        "orphan_masks": ["stray_mask.png", "x_mask.png"],
        "empty_masks": ["empty_mask.png", "faint_mask.png"],
        "faint_masks": ["faint_mask.png"],
        "marked_good": ["000_mask.png"],
        "grey_masks": ["grey_mask.png"],
        "flat": ["flat.png"],
    }
    assert [(path.name, reason) for path, reason in report.unreadable] == [
        ("bad.png", "is empty (0 bytes)"),
        ("brokenmask_mask.png", "is not an image, or its header is damaged"),
    ]
    assert [(path.name, a, b) for path, a, b in report.size_mismatches] == [("small_mask.png", (8, 8), (12, 16))]
    assert [{path.name for path in group} for group in report.leaks] == [{"leak.png", "000.png"}]
    assert [{path.name for path in group} for group in report.duplicates] == [
        {"2.png", "20.png"},
        {"leak.png", "000.png"},
    ]
    assert not report.clean
    text = report.text()
    for name in {name for group in names.values() for name in group} | {
        "bad.png",
        "brokenmask_mask.png",
        "small_mask.png",
    }:
        assert name in text
    assert text.count("warning:") == len(report.problems()) == 14


def test_files_that_cannot_be_read_are_no_good_images(tmp_path, put):
    put(tmp_path / "parts" / "a.png")
    (tmp_path / "parts" / "b.png").write_bytes(b"x")
    report = data.check(tmp_path / "parts")
    assert report.counts == {"parts": {"train": {"good": 1, "unreadable": 1}, "test": {}}}
    assert "good 1, unreadable 1" in report.text()


def test_modes_and_sizes_are_counted_as_stored(tmp_path, put):
    put(tmp_path / "parts" / "a.png", np.arange(24, dtype=np.uint8).reshape(4, 6))
    put(tmp_path / "parts" / "b.png", np.arange(35, dtype=np.uint8).reshape(5, 7), mode="P")
    put(tmp_path / "parts" / "c.jpg", Image.new("CMYK", (9, 3), (1, 2, 3, 4)))
    report = data.check(tmp_path / "parts")
    assert report.modes == {"parts": {"L": 1, "P": 1, "CMYK": 1}}
    assert report.heights == {"parts": (3, 5)}
    assert report.widths == {"parts": (6, 9)}
    assert "height 3..5, width 6..9" in report.text()


def test_long_lists_are_cut_with_a_count(tmp_path, put):
    for i in range(9):
        put(tmp_path / "parts" / f"{i}.png", np.full((4, 4), i, np.uint8))
    (line,) = data.check(tmp_path / "parts").problems()
    assert line == "9 images of one flat colour: 0.png, 1.png, 2.png, 3.png and 5 more"
    put(tmp_path / "one" / "0.png", np.full((4, 4), 9, np.uint8))
    assert data.check(tmp_path / "one").problems() == ["1 image of one flat colour: 0.png"]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        data.check(tmp_path / "nothing")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 1 image can be read .*a\.png: is empty"):
        data.check(tmp_path / "parts")
