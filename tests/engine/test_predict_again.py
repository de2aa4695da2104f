"""Predicting into a folder again: gone on with after any interruption, replaced, or refused; never mixed."""

import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import grey_predictor
import numpy as np
import pytest
from commands import refused, rows_of, vitlite
from PIL import Image

import vitlite as library
from vitlite.answers import Wanted
from vitlite.data.coming import Named, NewFiles
from vitlite.engine.predict import predict
from vitlite.engine.watch import predict_coming
from vitlite.errors import UserError
from vitlite.files import Claim
from vitlite.ledger import whole_rows

OLD = Path(__file__).parents[1] / "old_run"  # a trained run and its exported file, which need not be made


class Grey(grey_predictor.Grey):
    """``stop(count)`` is called before each batch with the number of images that were scored before it."""

    share = 1e-3

    def __init__(self, stop=lambda count: None):
        self.stop, self.count = stop, 0

    def score_pixels(self, pixels):
        self.stop(self.count)
        self.count += len(pixels)
        return super().score_pixels(pixels)


def stop_after(count):
    """What stops a call once it has scored so many images."""

    def stop(done):
        if done >= count:
            raise KeyboardInterrupt

    return stop


@pytest.fixture
def images(tmp_path):
    """11 images, of which the fifth cannot be read."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(11):
        Image.fromarray(np.full((9, 9, 3), 10 + 20 * i, np.uint8)).save(folder / f"{i}.png")
    (folder / "4.png").write_bytes(b"no image")
    return folder


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def call(images, out, detector=None, **options):
    return predict(detector or Grey(), images, out, maps=True, batch_size=3, **options)


def interrupted(images, out, count=6, **options):
    with pytest.raises(KeyboardInterrupt):
        call(images, out, Grey(stop_after(count)), **options)


@pytest.fixture
def whole(images, tmp_path):
    """The files of a call that nothing stopped."""
    call(images, tmp_path / "whole")
    return tree(tmp_path / "whole")


def cut_line(out):
    with open(out / "predictions.csv", "ab") as file:
        file.write(b'in/7.png,"1')


def lost_overlay(out):
    (out / "1.png").unlink()


@pytest.mark.parametrize("damage", [None, cut_line, lost_overlay, shutil.rmtree])
def test_a_finished_call_is_the_same_whichever_way_it_came(images, tmp_path, whole, damage):
    """Files and bytes, after two interruptions and what a system that lost its power leaves."""
    out = tmp_path / "out"
    interrupted(images, out, 3)
    interrupted(images, out, 3, resume=True)
    rows = rows_of(out / "predictions.csv")
    assert 0 < sum(bool(row["verdict"]) for row in rows) < 10
    if damage:
        damage(out)
    detector = Grey()
    found = call(images, out, detector, resume=True)
    assert tree(out) == whole
    assert detector.count < 10 or damage is shutil.rmtree
    assert [row["file"] for row in found] == [str(images / f"{i}.png") for i in range(11)]
    expected = call(images, tmp_path / "again")
    for row, other in zip(found, expected, strict=True):
        assert {**row, "score": 0, "percentile": 0} == {**other, "score": 0, "percentile": 0}
        if "error" not in row:
            assert row["score"] == pytest.approx(other["score"], rel=1e-5)


def test_an_image_without_a_verdict_is_tried_again(images, tmp_path):
    out = tmp_path / "out"
    call(images, out)
    Image.fromarray(np.full((9, 9, 3), 90, np.uint8)).save(images / "4.png")
    detector = Grey()
    call(images, out, detector, resume=True)
    assert detector.count == 3  # with those that share its batch
    call(images, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")
    assert call(images, out, Grey(stop_after(0)), resume=True)[4]["verdict"] == "good"


def test_more_images_may_be_given_and_names_follow(images, tmp_path):
    """A second 0.png takes the plain name from the first; of the first row nothing is left."""
    out, more = tmp_path / "out", tmp_path / "more"
    call(images, out)
    more.mkdir()
    shutil.copy(images / "0.png", more)
    call([images, more], out, resume=True)
    call([images, more], tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")
    with pytest.raises(UserError, match=r"holds rows of 1 images that are not given, first .*more/0\.png"):
        call(images, out, resume=True)


def test_earlier_predictions_are_not_mixed_with_new_ones(images, tmp_path):
    out = tmp_path / "out"
    interrupted(images, out)
    before = tree(out)
    with pytest.raises(UserError, match=r"holds predictions\.csv of an earlier call; use resume=True"):
        call(images, out)
    assert tree(out) == before
    (out / "notes.txt").write_text("not ours")
    only = images / "10.png"
    call(only, out, overwrite=True)
    files = {"predictions.csv", "predictions.json", "notes.txt", "10.png", "maps/10.tiff"}
    assert tree(out).keys() == files
    with pytest.raises(UserError, match=r"overwrite=True: not together with resume=True"):
        call(only, out, overwrite=True, resume=True)


@pytest.mark.parametrize("name", ["3.png", "maps/3.tiff", "parts/3.png", "parts.csv"])
@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}, {"overwrite": True, "shard": "2/2"}])
def test_a_file_of_somebody_else_is_not_replaced(images, tmp_path, name, how):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b"precious")
    says = rf"out=.*out: holds {name}, which vitlite did not write and would replace; choose another folder$"
    detector = Grey()
    detector.without_parts = None
    with pytest.raises(UserError, match=says):
        predict(detector, images, out, maps=True, parts=True, group_by=r"\d+", **how)
    assert tree(out) == {name: b"precious"}


@pytest.mark.parametrize("name", ["3.png", "maps/3.tiff", "parts.csv"])
@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {"overwrite": True, "shard": "1/1"}])
def test_a_file_that_was_put_among_predictions_is_not_replaced(images, tmp_path, name, how):
    out = tmp_path / "out"
    call([images / "1.png", images / "2.png"], out)
    shutil.copy(images / "3.png", out / name)
    before = tree(out)
    with pytest.raises(UserError, match=rf"holds {name}, which vitlite did not write and would replace; choose"):
        call(images, out, group_by=r"\d+", **how)
    assert tree(out) == before
    (out / name).unlink()
    call(images, out, group_by=r"\d+", **how)
    call(images, out, group_by=r"\d+", overwrite=True)  # a table of parts, and overlays of a share, are ours


def test_files_of_a_call_that_was_stopped_before_their_row_are_replaced(images, tmp_path, whole):
    out = tmp_path / "out"
    call(images, out)
    for how in ({"resume": True}, {"overwrite": True}):
        head, *_ = (out / "predictions.csv").read_bytes().splitlines(keepends=True)
        (out / "predictions.csv").write_bytes(head)
        call(images, out, **how)
        assert tree(out) == whole


def test_images_that_come_get_another_name_than_a_file_among_predictions(images, tmp_path):
    out = tmp_path / "out"
    wanted = Wanted(maps=True)
    predict_coming(Grey(), Named(io.BytesIO(str(images / "1.png").encode())), out, wanted=wanted)
    shutil.copy(out / "1.png", out / "2.png")  # as if a call was stopped before the row
    shutil.copy(images / "3.png", out)
    names = "\n".join(str(images / f"{i}.png") for i in (2, 3))
    predict_coming(Grey(), Named(io.BytesIO(names.encode())), out, wanted=wanted, resume=True)
    assert [row["overlay"] for row in rows_of(out / "predictions.csv")] == ["1.png", "2.png", "in_3.png"]
    assert (out / "3.png").read_bytes() == (images / "3.png").read_bytes()


def test_a_table_of_parts_of_somebody_else_is_not_replaced_by_watching(images, tmp_path):
    (tmp_path / "parts.csv").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"holds parts\.csv, which vitlite did not write"):
        predict_coming(Grey(), NewFiles(images), tmp_path, group_by=r"\d+", overwrite=True)
    assert (tmp_path / "parts.csv").read_bytes() == b"precious"


def test_rows_never_name_a_file_elsewhere(images, tmp_path):
    out = tmp_path / "out"
    call(images, out)
    for name in ("../in/1.png", str(images / "1.png")):
        table = (out / "predictions.csv").read_text().replace(",1.png,", f",{name},")
        (out / "predictions.csv").write_text(table)
        call(images, out, overwrite=True)
        assert (images / "1.png").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda detector: setattr(detector, "digest", lambda: "other"), "another model;"),
        (lambda detector: detector.calibration.update(image_threshold=5.0), "another calibration, image_threshold;"),
        ({"maps": False}, "another maps;"),
        ({"overlays": False}, "another overlays;"),
        ({"batch_size": 4}, "another batch_size;"),
        ({"min_area": 2}, "another min_area;"),
    ],
)
def test_only_the_same_call_goes_on(images, tmp_path, change, says):
    out, detector, options = tmp_path / "out", Grey(), {"maps": True, "batch_size": 3}
    call(images, out)
    before = tree(out)
    detector.calibration = dict(Grey.calibration)
    if isinstance(change, dict):
        options |= change
    else:
        change(detector)
    with pytest.raises(UserError, match=f"were made with {says}"):
        predict(detector, images, out, resume=True, **options)
    assert tree(out) == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("predictions.json", None, r"predictions\.json: cannot be read"),
        ("predictions.json", b"[]", r"predictions\.json: cannot be read"),
        ("predictions.json", b"[" * 9**5, r"predictions\.json: cannot be read"),
        ("predictions.csv", b"a,b\n1,2\n", r"predictions\.csv: damaged \(its columns are others\)"),
        ("predictions.csv", b"\xff\xfe\n", r"predictions\.csv: damaged"),
    ],
)
def test_a_damaged_folder_is_not_gone_on_with(images, tmp_path, name, content, says):
    out = tmp_path / "out"
    call(images, out)
    (out / name).unlink() if content is None else (out / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{says}.*use overwrite=True"):
        call(images, out, resume=True)
    with pytest.raises(UserError, match="of an earlier call"):
        call(images, out)
    call(images, out, overwrite=True)


def test_two_processes_do_not_write_one_table(images, tmp_path):
    with Claim(tmp_path / "out", "writing") as claim:
        claim.take()
        with pytest.raises(UserError, match="another process is writing there"):
            call(images, tmp_path / "out", resume=True)
        other = Claim(tmp_path / "out", "writing")
        for _ in range(2):
            with pytest.raises(UserError, match="another process is writing there"):
                other.take()
            assert other.handle is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
def test_rows_of_files_whose_names_are_no_text_are_kept(images, tmp_path):
    (images / "0.png").rename(images / "0\udcff.png")
    call(images, tmp_path / "out")
    again = Grey()
    call(images, tmp_path / "out", again, resume=True)
    assert again.count == 2  # those of the batch with the file that cannot be read
    (images / "1.png").rename(images / "0\udcfe.png")
    for resume in (False, True):
        again = Grey()
        predict(again, images, tmp_path / "alike", overlays=False, batch_size=3, resume=resume)
    assert again.count == 5  # nobody knows whose of two rows with one name is whose


@pytest.mark.parametrize(
    ("data", "whole"),
    [(b"", 0), (b"a,b", 0), (b"a,b\nc", 4), (b'a\n"b\nc', 2), (b'a\n"b\nc"\n', 8), (b'a\n"b""\n', 2), (b"a\n\n", 3)],
)
def test_whole_rows(data, whole):
    assert whole_rows(data) == whole


# As a user meets it: real detectors, real signals.
WAITING = """
import signal, sys, threading
import vitlite.engine.predict as p

answer, rows = p.answer, []

def waiting(*args):
    rows.append(answer(*args))
    if len(rows) > 20:
        print("waiting", flush=True)
        threading.Event().wait()
    return rows[-1]

p.answer = waiting
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores Ctrl-C
from vitlite.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def folder(tmp_path):
    """30 images."""
    folder = tmp_path / "in"
    folder.mkdir()
    several = sorted(OLD.glob("data/weave/test/*/*.png"))
    for i in range(30):
        shutil.copy(several[i % len(several)], folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("source", "number", "code"),
    [
        ("anovit", signal.SIGINT, 130),
        ("anovit/model.onnx", signal.SIGTERM, 143),
        ("anovit/model.onnx", signal.SIGKILL, -9),
    ],
)
def test_stopped_by_a_signal(source, number, code, folder, tmp_path):
    source, out = OLD / "runs" / source, tmp_path / "out"
    command = [sys.executable, "-c", WAITING, "predict", str(source), str(folder), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == code, said
    if code > 0:
        assert said == f"vitlite: stopped ({number.name}); the same command with --resume goes on\n"
    assert (out / "predictions.csv").read_bytes().endswith(b"\n")
    rows = rows_of(out / "predictions.csv")
    assert len(rows) == 20
    assert all(row["verdict"] and (out / row["overlay"]).exists() for row in rows)
    said, _ = vitlite("predict", source, folder, "--out", out, "--resume")
    assert "of 30 images defective" in said
    predict(library.load(source), folder, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


def test_options_of_the_command(folder, tmp_path):
    run, out = OLD / "runs/anovit", tmp_path / "out"
    vitlite("predict", run, folder / "0.png", "--out", out, "--resume")  # there is nothing to go on with
    says = "use --resume to go on with it, --overwrite to replace it"
    line = refused("predict", run, folder / "1.png", "--out", out, says=says)
    assert line.startswith(f"vitlite: --out {out}: holds predictions.csv")
    refused("predict", run, folder, "--out", out, "--resume", "--no-overlays", says="another overlays; --resume")
    both = ("--resume", "--overwrite")
    refused("predict", run, folder, "--out", out, *both, says="--overwrite: not together with --resume")
    vitlite("predict", run, folder / "1.png", "--out", out, "--overwrite")
    assert {path.name for path in out.iterdir()} == {"1.png", "predictions.csv", "predictions.json"}
