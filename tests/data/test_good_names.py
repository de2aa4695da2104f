"""A folder of test images that has a name of good ones, and counts as a kind of defect, is named."""

import pytest

from vitlite.data import open_dataset


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("good_02", True),
        ("good ", True),
        ("OK-day2", True),
        ("no_defect", True),
        ("defect-free", True),
        ("not_good", False),
        ("not_ok", False),
        ("good_but_scrap", False),
        ("passivation", False),
        ("scratch", False),
    ],
)
def test_only_a_name_of_good_images_is_named(put, tmp_path, name, says):
    for place in ("train/good", "test/good", "test/dent", f"test/{name}"):
        put(tmp_path / "parts" / place / "0.png")
    dataset = open_dataset(tmp_path / "parts")
    found = [line for line in dataset.warnings if "name of good images" in line]
    assert len(found) == says
    assert all(f"test/{name}/ (1); if it is good, move it into the folder" in line for line in found)
    assert {sample.defect for sample in dataset.test if sample.label} == {"dent", name}
    assert open_dataset(tmp_path, "parts").seem_good == dataset.seem_good


def test_all_of_them_are_counted(put, tmp_path):
    for place in ("train/good/0", "test/good/0", "test/good_1/0", "test/good_1/1", "test/ok_2/0", "test/dent/0"):
        put(tmp_path / f"{place}.png")
    (line,) = open_dataset(tmp_path).warnings
    assert line.startswith("3 test images count as defective in a folder with a name of good images: ")
    assert "test/good_1/ (2), test/ok_2/ (1); if they are good, move them into" in line


def test_in_layouts_with_another_name_for_good_images(put, tmp_path):
    for place in ("train/ok", "test/ok", "test/ok_2", "test/ko"):
        put(tmp_path / place / "0.png")
    (line,) = open_dataset(tmp_path).warnings
    assert "test/ok_2/ (1)" in line
