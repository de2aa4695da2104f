"""Writing a file: whole or not at all, with the rights of any other new file."""

import errno
import os
import sys

import pytest

from vitlite.errors import UserError
from vitlite.files import atomic, refuse_unwritable, remove_leftovers, write_text, write_together


@pytest.mark.skipif(sys.platform == "win32", reason="a Unix has these rights")
def test_a_file_has_the_rights_of_any_other_and_no_thread_sees_another_mask(tmp_path, monkeypatch):
    """The mask is of the whole process: what another thread made while it is changed could be written by everybody."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("changes the rights of other threads' files"))
        write_text(tmp_path / "whole", "text")
        (tmp_path / "other").touch()
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert (tmp_path / "whole").stat().st_mode & 0o777 == 0o640


def test_what_fails_leaves_nothing(tmp_path):
    write_text(tmp_path / "a", "before")

    def fails():
        with atomic(tmp_path / "a") as file:
            file.write("after")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


@pytest.mark.parametrize("out", ["file", "file/in/it"])
def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=rf"^plot={tmp_path / out}: {tmp_path / 'file'} is a file, not a folder; choose"
    ):
        refuse_unwritable(tmp_path / out, "plot")
    refuse_unwritable(tmp_path / "new/folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that nobody can write, whatever the rights")
def test_a_folder_that_cannot_be_written_is_refused_before_the_work():
    with pytest.raises(UserError, match=r"^/proc: cannot be written \("):
        refuse_unwritable("/proc/new/folder")


def test_what_a_killed_process_left_is_known_by_its_name(tmp_path):
    with atomic(tmp_path / "a name.json"):
        (half,) = tmp_path.iterdir()
        remove_leftovers(tmp_path)
        assert not half.exists()
        half.write_text("the rest")  # so that it can take its name
    assert [path.name for path in tmp_path.iterdir()] == ["a name.json"]


def test_files_that_belong_together_change_together(tmp_path, monkeypatch):
    """If the disk is full at the second of them, the first one is as it was, and nothing else is left."""
    first, second = tmp_path / "results.csv", tmp_path / "results.json"
    write_together({first: "before\r\n", second: "{}"})
    assert (first.read_bytes(), second.read_bytes()) == (b"before\r\n", b"{}")

    written = []

    def full(number):
        written.append(number)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"^{second}: cannot be written .* make room there"):
        write_together({first: "after", second: "after"})
    assert (first.read_bytes(), second.read_bytes()) == (b"before\r\n", b"{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.json"]
