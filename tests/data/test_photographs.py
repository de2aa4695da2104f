"""Masks, coordinates and depths beside photographs are not scored, and a line says so."""

import os

import pytest

from vitlite.data import list_images
from vitlite.data.photographs import list_defects, photographs
from vitlite.errors import UserError

CUBE = ("good/rgb/0.png", "good/rgb/1.png", "good/xyz/0.tiff", "good/xyz/1.tiff", "good/gt/0.png", "good/gt/1.png")
BESIDE = (
    *("parts/0.png", "parts/0_depth.png", "parts/0_depth.tiff", "parts/xyz_1.tiff", "parts/1.png", "parts/1-mask.png"),
    *("parts/2_depth.png", "parts/3_mask.png"),
)
MVTEC = ("test/good/0.png", "test/cut/0.png", "ground_truth/cut/0_mask.png")


def made(tmp_path, files):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    return tmp_path


def names(paths, root):
    return [os.path.relpath(path, root) for path in paths]


@pytest.mark.parametrize("given", [".", "good", "g*", "good/*/"])
def test_photographs_alone_of_a_3d_set(tmp_path, monkeypatch, given):
    monkeypatch.chdir(made(tmp_path, CUBE))
    found, line = photographs(list_images(given), given)
    assert names(found, tmp_path) == ["good/rgb/0.png", "good/rgb/1.png"]
    assert line == (
        "4 images are left out, because they are no photographs: good/gt/ (2, masks), good/xyz/ (2, coordinates or "
        "depths); to score them, give that folder or file itself"
    )


def test_masks_of_a_category_are_not_scored(tmp_path):
    root = made(tmp_path, MVTEC)
    found, line = photographs(list_images(root), root)
    assert names(found, root) == ["test/cut/0.png", "test/good/0.png"]
    assert line == (
        f"1 image is left out, because it is no photograph: {root}/ground_truth/ (1, masks); to score it, give that "
        "folder or file itself"
    )


@pytest.mark.parametrize("given", [".", "parts/*", "p*"])
def test_files_named_after_a_photograph_are_not_scored(tmp_path, monkeypatch, given):
    monkeypatch.chdir(made(tmp_path, BESIDE))
    found, line = photographs(list_images(given), given)
    assert names(found, tmp_path) == ["parts/0.png", "parts/1.png", "parts/2_depth.png", "parts/3_mask.png"]
    assert line == (
        "4 images are left out, because they are no photographs: parts/ (3, coordinates or depths by name), parts/ (1, "
        "masks by name); to score them, give that folder or file itself"
    )


def test_known_defects_are_photographs_of_no_folder_of_good_images(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(made(tmp_path, (*MVTEC, *BESIDE)))
    assert names(list_defects(["parts"]), tmp_path)[:2] == ["parts/0.png", "parts/1.png"]
    assert "4 images are left out" in caplog.text
    for given in (["test"], ["."], ["test/*"], ["test/*/*.png"], ["test/cut", "test/"]):
        with pytest.raises(UserError, match=r"defects: test/good has a name of good images; give"):
            list_defects(given)
    for given in (["test/good"], ["test/good/0.png"], ["test/cut"]):
        assert len(list_defects(given)) == 1


@pytest.mark.parametrize(
    ("files", "given"),
    [
        (MVTEC, ["ground_truth"]),  # given itself
        (MVTEC, ["ground_truth/cut/0_mask.png", "test"]),
        (CUBE, ["good/xyz", "good/rgb"]),
        (BESIDE, [f for f in BESIDE if "_" not in f] + [f for f in BESIDE if "_" in f]),  # all by name
        (BESIDE, ["parts/*_depth.png"]),
        (("parts/depth/0.png", "parts/width/0.png"), ["."]),  # no photographs beside the depths
        (("masks/0.png", "gloves/0.png", "labels/0.png"), ["."]),  # products
        (("ground_truth/0.png",), ["."]),  # nothing else
    ],
)
def test_what_else_is_scored(tmp_path, monkeypatch, files, given):
    monkeypatch.chdir(made(tmp_path, files))
    every = list_images(given)
    assert photographs(every, given) == (every, "")
