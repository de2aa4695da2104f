"""The images that arguments of a command stand for."""

import pytest

from vitlite import data
from vitlite.errors import UserError


@pytest.fixture
def parts(tmp_path, put):
    for name in ("10.png", "2.png", "a[1].png", "sub/3.JPG", "sub/deep/4.tiff", ".hidden/5.png", ".6.png"):
        put(tmp_path / "parts" / name, format={"JPG": "JPEG", "tiff": "TIFF"}.get(name.rsplit(".", 1)[1], "PNG"))
    (tmp_path / "parts" / "notes.txt").write_text("x")
    return tmp_path / "parts"


def listed(folder, *given):
    return [path.relative_to(folder).as_posix() for path in data.list_images([folder / name for name in given])]


def test_folders_are_recursive(parts):
    assert listed(parts, "") == ["2.png", "10.png", "a[1].png", "sub/3.JPG", "sub/deep/4.tiff"]
    assert data.list_images(str(parts)) == data.list_images([parts])


def test_patterns(parts):
    assert listed(parts, "*.png") == ["2.png", "10.png", "a[1].png"]
    assert listed(parts, "**/*.JPG") == ["sub/3.JPG"]
    assert listed(parts, "**/*") == ["2.png", "10.png", "a[1].png", "sub/3.JPG", "sub/deep/4.tiff"]
    assert listed(parts, "s*") == ["sub/3.JPG", "sub/deep/4.tiff"]
    assert listed(parts, "[0-9].png") == ["2.png"]


def test_relative_patterns(parts, monkeypatch):
    monkeypatch.chdir(parts)
    assert [str(path) for path in data.list_images(["*.png", "2.png"])] == ["2.png", "10.png", "a[1].png"]


def test_a_named_file_is_taken_as_it_is(parts):
    assert listed(parts, "a[1].png", "notes.txt", ".6.png") == ["a[1].png", "notes.txt", ".6.png"]


def test_order_is_the_user_s_and_each_file_comes_once(parts):
    assert listed(parts, "10.png", "2.png", "", "sub/../2.png")[:3] == ["10.png", "2.png", "a[1].png"]
    assert len(listed(parts, "", "")) == 5


@pytest.mark.parametrize("given", ["nothing.png", "nothing", "*.bmp", "*.txt", "empty", "a\0b", "x/**y/*.png"])
def test_what_matches_nothing_is_named(parts, given):
    (parts / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        data.list_images([parts / "2.png", parts / given])
    assert given.replace("\0", "") in str(caught.value).replace("\0", "")


def test_a_folder_of_images_that_are_not_read_is_told_from_an_empty_one(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"1 image is left out, because the format is not read \(\.heic 1\); save it as"
    ):
        data.list_images([tmp_path])


def test_no_path_at_all():
    with pytest.raises(UserError, match="no image given"):
        data.list_images([])
