"""`vitlite data`: what it prints and how it ends."""

import shutil

from commands import vitlite

SMALL = ["--size", "32", "--train", "2", "--good", "1", "--defects", "1"]


def test_synth_then_check(tmp_path):
    printed = vitlite("data", "synth", "--out", tmp_path / "set", "--categories", "tiles,metal", "--seed", 3, *SMALL)
    assert printed == (f"{tmp_path / 'set'}: metal, tiles; 4 training and 8 test images\n", "")
    out, err = vitlite("data", "check", tmp_path / "set")
    assert err == ""
    assert "metal" in out
    assert "no problems found" in out
    assert "metal\n" not in vitlite("data", "check", tmp_path / "set", "--category", "tiles")[0]


def test_synth_draws_the_kinds_that_are_asked_for(tmp_path):
    out, _ = vitlite(
        "data", "synth", "--out", tmp_path / "set", "--categories", "wood", "--kinds", "tiny,large", *SMALL
    )
    assert out.endswith("2 training and 3 test images\n")
    assert sorted(path.name for path in (tmp_path / "set" / "wood" / "test").iterdir()) == ["good", "large", "tiny"]


def test_defects_are_drawn_onto_good_images(tmp_path):
    vitlite("data", "synth", "--out", tmp_path / "set", "--categories", "wood", *SMALL)
    good = tmp_path / "set" / "wood" / "train" / "good"
    printed = vitlite("data", "draw", good, "--out", tmp_path / "drawn", "--defects", 1)
    assert printed == (f"{tmp_path / 'drawn'}: 2 good and 5 defective test images\n", "")
    assert "no problems found" in vitlite("data", "check", tmp_path / "drawn")[0]


def test_warnings_do_not_fail(tmp_path):
    vitlite("data", "synth", "--out", tmp_path, "--categories", "wood", *SMALL)
    (tmp_path / "wood" / "train" / "good" / "000.png").write_bytes(b"")
    out, err = vitlite("data", "check", tmp_path)
    assert err == ""
    assert "warning: unreadable, will be skipped: wood/train/good/000.png (is empty (0 bytes))" in out


def test_train_and_check_name_the_images_that_are_left_out(tmp_path):
    vitlite("data", "synth", "--out", tmp_path, "--categories", "wood", *SMALL)
    good = tmp_path / "wood" / "train" / "good"
    (good / "camera2").mkdir()
    shutil.copy(good / "000.png", good / "camera2" / "000.png")
    line = "wood: 1 image is left out, because none are read there: train/good/camera2/ (1); to use it,"
    tiny = ["--set", "steps=2", "--set", "image_size=32", "--set", "window=0", "--device", "cpu"]
    run, source = tmp_path / "run", tmp_path / "wood"
    _, err = vitlite("train", "--method", "l2cae", "--data", source, "--out", run, *tiny)
    assert err.count(line) == 1
    _, err = vitlite("eval", run, "--device", "cpu")
    assert err.count(line) == 1
    out, _ = vitlite("data", "check", source)
    assert "1 image is left out, because none are read" in out
