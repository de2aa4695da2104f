"""Images that keep coming: what is new in a folder, names on a stream, and the rows of both."""

import io
import itertools
import os
import shutil

import grey_predictor
import numpy as np
import pytest
from commands import rows_of
from PIL import Image

from vitlite.answers import Wanted
from vitlite.data import coming
from vitlite.data.coming import Named, NewFiles
from vitlite.engine import watch
from vitlite.engine.predict import predict
from vitlite.engine.watch import predict_coming
from vitlite.errors import UserError


class Grey(grey_predictor.Grey):
    share = 0  # images come in batches of any size
    calibration = grey_predictor.calibration_of([float(value) for value in range(0, 100, 2)])


def grey(path, value=50):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((9, 9, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    return path


def names(batch):
    return [path.name for path in batch]


def watched(detector, new, looks, *args, **options):
    """The rows of a folder that is looked into so many times; ``looks`` are called one after another between them."""
    rows = []

    class Few:
        unreadable, name = new.unreadable, new.name

        def batches(self, done):
            batches = new.batches(done)
            for look in looks:
                look()
                yield next(batches)

    predict_coming(detector, Few(), *args, emit=rows.append, **options)
    return rows


def test_what_is_no_photograph_by_name_is_left_out(folder, caplog):
    for name in ("0.png", "0_depth.png", "1.png", "1_mask.png", "2_depth.png", "gt/0.png", "rgb/0.png", "xyz/0.png"):
        grey(folder / name)
    batch = next(NewFiles(folder, settle=0).batches(()))
    assert sorted(os.path.relpath(path, folder) for path in batch) == ["0.png", "1.png", "2_depth.png", "rgb/0.png"]
    masks, surfaces = sorted(caplog.messages, key=lambda line: "coordinates" in line)
    assert "left out, as are all such files, because by name masks and no photographs" in masks
    assert "because by name coordinates or depths and no photographs" in surfaces


def test_a_file_that_grows_is_not_complete(folder, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(coming.time, "monotonic", lambda: next(clock) / 10)
    monkeypatch.setattr(coming.time, "sleep", lambda seconds: None)
    looks = NewFiles(folder, settle=1.0).batches(())
    for size in range(1, 40):
        (folder / "a.png").write_bytes(b"x" * size)
        assert next(looks) == []
    assert [path.name for batch in itertools.islice(looks, 40) for path in batch] == ["a.png"]


def test_what_is_new_in_a_folder(folder, tmp_path):
    """Oldest first; what moves is not new, what is overwritten is; hidden and temporary names are not taken."""
    for name, age in (("b.png", 200), ("a.png", 100)):
        os.utime(grey(folder / name), (1e9 - age, 1e9 - age))
    for name in (".a.png", "c.png.part", "notes.txt", ".git/d.png", "out/e.png"):
        grey(folder / name) if name.endswith("png") else (folder / name).write_text("x")
    looks = NewFiles(folder, folder / "out", settle=0).batches(())
    assert names(next(looks)) == ["b.png", "a.png"]
    (folder / "done").mkdir()
    (folder / "b.png").rename(folder / "done/b.png")
    grey(folder / "a.png", 70)
    (folder / "c.png.part").rename(folder / "c.png")
    assert sorted(names(next(looks))) == ["a.png", "c.png"]
    shutil.rmtree(folder)
    assert next(looks) == next(looks) == []
    folder.mkdir()
    grey(folder / "d.png")
    assert names(next(looks)) == ["d.png"]
    folder.rename(tmp_path / "away")  # as a share that is gone for a while
    assert next(looks) == next(looks) == []
    (tmp_path / "away").rename(folder)
    grey(folder / "e.png")
    assert names(next(looks)) == ["e.png"]


def test_a_folder_that_cannot_be_watched(folder, tmp_path):
    for arguments, says in (
        ((tmp_path / "none",), "is no folder"),
        ((folder, folder), "holds the images of"),
        ((folder, tmp_path), "holds the images of"),
    ):
        with pytest.raises(UserError, match=says):
            NewFiles(*arguments)


def test_files_that_go_away_or_cannot_be_read_yet(folder, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(coming.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(coming.time, "sleep", lambda seconds: None)
    whole = grey(folder / "slow.png").read_bytes()

    def begin():
        (folder / "slow.png").write_bytes(whole[:45])
        (folder / "bad.png").write_bytes(b"no image")
        (folder / "link.png").symlink_to(folder / "nothing.png")
        grey(folder / "gone.png")

    def later(seconds, *changes):
        def look():
            clock[0] += seconds
            for change in changes:
                change()

        return look

    class GoneBefore(Grey):
        def score_files(self, paths, **options):
            (folder / "gone.png").unlink(missing_ok=True)
            return super().score_files(paths, **options)

    finish = later(5, lambda: (folder / "slow.png").write_bytes(whole))
    rows = watched(GoneBefore(), NewFiles(folder, settle=0), [begin, finish, later(1), later(20), later(20)])
    assert [(os.path.basename(row["file"]), "error" in row) for row in rows] == [("slow.png", False), ("bad.png", True)]


def test_stopped_and_gone_on_with(folder, tmp_path):
    """Whole rows, whatever the moment; a later call scores what has no verdict, and keeps the others."""
    out = tmp_path / "out"
    for i in range(5):
        grey(folder / f"p{i // 2}_{i}.png", 60 + 20 * i)

    def stop():
        raise KeyboardInterrupt

    options = {"group_by": r"p(\d+)", "wanted": Wanted(batch_size=2)}
    with pytest.raises(KeyboardInterrupt):
        watched(Grey(), NewFiles(folder, out, settle=0), [lambda: None, stop], out, **options)
    assert len(rows_of(out / "predictions.csv")) == 5
    assert [row["verdict"] for row in rows_of(out / "parts.csv")] == ["good", "defect", "defect"]
    with pytest.raises(UserError, match=r"holds predictions\.csv of an earlier call"):
        watched(Grey(), NewFiles(folder, out, settle=0), [lambda: None], out, **options)
    grey(folder / "p2_5.png", 10)
    new = NewFiles(folder, out, settle=0)
    rows = watched(Grey(), new, [lambda: None], out, resume=True, **options)
    assert [os.path.basename(row["file"]) for row in rows] == ["p2_5.png"]
    assert (rows[0]["part"], rows[0]["part_verdict"], rows[0]["part_images"]) == ("2", "defect", 2)
    written = rows_of(out / "predictions.csv")
    assert [row["overlay"] for row in written] == [f"p{i // 2}_{i}.png" for i in range(6)]
    assert all((out / row["overlay"]).exists() for row in written)
    whole = predict(Grey(), folder, tmp_path / "whole", batch_size=2)
    assert [row["verdict"] for row in written] == [row["verdict"] for row in whole]


def test_names_on_a_stream(folder, tmp_path):
    """A file that is missing is a row; one that is named again is scored again; no other's file is replaced."""
    files = [grey(folder / "a.png"), folder / "missing.png", grey(folder / "sub/a.png"), folder / "a.png"]
    out = tmp_path / "out"
    grey(out / "a.png", 1)
    stream = io.BufferedReader(io.BytesIO(b"\n\n" + b"\r\n".join(map(os.fsencode, files))), buffer_size=16)
    tally = predict_coming(Grey(), Named(stream), out)
    written = rows_of(out / "predictions.csv")
    assert [row["file"] for row in written] == list(map(str, files))
    assert "no such file" in written[1]["error"]
    assert written[0]["overlay"] == written[3]["overlay"] == "in_a.png"
    assert written[2]["overlay"] == "sub_a.png"
    assert (tally.images, tally.unread) == (4, 1)
    assert np.all(np.asarray(Image.open(out / "a.png")) == 1)


def test_a_drift_is_said(folder, caplog):
    for i in range(60):
        grey(folder / f"{i}.png", 40 if i < 20 else 95)
    rows = watched(Grey(), NewFiles(folder, settle=0), [lambda: None])
    assert {row["verdict"] for row in rows} == {"good"}
    (line,) = (record.message for record in caplog.records if record.name == watch.__name__)
    assert line.startswith("scores drift: ")


def test_files_of_a_format_that_is_not_read_are_named_once(folder, caplog):
    for name in ("1.heic", "2.dng"):
        (folder / name).write_bytes(b"x")
    grey(folder / "3.png")
    new = NewFiles(folder, settle=0)
    found = [names(batch) for batch in itertools.islice(new.batches(()), 3)]
    assert found == [["3.png"], [], []]
    (line,) = caplog.messages
    assert line.endswith(": left out, as are all such files, because the format is not read")
