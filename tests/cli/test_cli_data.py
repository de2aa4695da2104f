"""`vitlite data`: what it prints and how it ends."""

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


def test_warnings_do_not_fail(tmp_path):
    vitlite("data", "synth", "--out", tmp_path, "--categories", "wood", *SMALL)
    (tmp_path / "wood" / "train" / "good" / "000.png").write_bytes(b"")
    out, err = vitlite("data", "check", tmp_path)
    assert err == ""
    assert "warning: unreadable, will be skipped: wood/train/good/000.png (is empty (0 bytes))" in out
