"""Training on a machine that fails it: no room, nothing writable, data gone, signals. One line, and it can go on."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest
import torch
from commands import python
from interruptions import (
    begin,
    finish,
    go_on,
    limit_file_size,
    remove_in_epoch,
    signal_in_epoch,
    signal_in_synthesis,
)
from tiny_settings import TINY_OPTIONS

from vitlite.engine import features
from vitlite.engine.checkpoint import load_checkpoint, save_checkpoint
from vitlite.errors import UserError
from vitlite.files import append_line, require_writable, write_text

# The frozen network makes checkpoints of about one size, with an optimiser and without.
OPTIONS = ("--set", "epochs=3", "--set", "backbone=efficientnet_lite0", "--quiet")


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """The weights of a run to which nothing happened."""
    folder = tmp_path_factory.mktemp("whole")
    code, said = finish(begin(tiny_data, folder / "run", *OPTIONS), folder / "said")
    assert (code, said) == (0, "")
    return load_checkpoint(folder / "run", "sivt")["model"]


@pytest.fixture
def mount(tmp_path):
    """Mounts a small disk of its own; the function takes mount's options and gives the folder."""
    mounted = []

    def mount(*options):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = shutil.which("mount")
        done = command and subprocess.run([command, *options, str(folder)], capture_output=True, text=True)
        if not done or done.returncode:
            pytest.skip(f"cannot mount a disk here ({done.stderr.strip() if done else 'no mount command'})")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def fails(args, place, pattern, *setup, code=2):
    """The command ends with this code, and what it says is one line that matches."""
    ended, said = finish(args, place / "said", *setup)
    assert ended == code, said
    assert re.fullmatch(f"vitlite: .*{pattern}.*\n", said), said


def assert_goes_on(run, tmp_path, whole):
    code, said = finish(go_on(run, "--quiet"), tmp_path / "said")
    assert (code, said) == (0, "")
    model = load_checkpoint(run, "sivt")["model"]
    assert all(torch.equal(model[name], whole[name]) for name in whole)
    assert not list(run.glob(".*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tiny_data, tmp_path, whole, number, code):
    run = tmp_path / "my run"
    says = rf"stopped \({number.name}\); go on with --resume --out '{run}'"
    fails(begin(tiny_data, run, *OPTIONS), tmp_path, says, signal_in_epoch, number, 2, code=code)
    assert load_checkpoint(run, "sivt")["epoch"] == 2
    assert not list(run.glob(".*"))
    assert_goes_on(run, tmp_path, whole)


def test_signal_before_training_began(tmp_path):
    """While the synthetic set is made there is no run yet to go on with."""
    args = ["train", "--method", "sivt", "--out", tmp_path / "run", *TINY_OPTIONS, "--device", "cpu", "--quiet"]
    says = r"stopped \(SIGTERM\) before training began; start it again"
    fails(args, tmp_path, says, signal_in_synthesis, signal.SIGTERM, code=143)
    assert not list((tmp_path / "run").iterdir())


def test_signal_of_a_command_that_is_no_training():
    """As a process of its own: the handlers are those that a user meets."""
    code = (
        "import os, signal, sys, vitlite.cli as c, vitlite.data.checking as k\n"
        "k.check = lambda *a, **o: os.kill(os.getpid(), signal.SIGTERM)\n"
        "import vitlite.data; vitlite.data.check = k.check\n"
        "c.main(['data', 'check', '.'])"
    )
    assert python(code) == (143, "", "vitlite: stopped (SIGTERM)\n")


def test_file_too_large(tiny_data, tmp_path, whole):
    """No file may grow beyond a limit; config.toml fits, the checkpoint does not."""
    run = tmp_path / "run"
    says = r"checkpoint\.pt: cannot be written \(File too large\); make room there"
    fails(begin(tiny_data, run, *OPTIONS), tmp_path, says, limit_file_size, 100_000)
    assert {p.name for p in run.iterdir()} == {"config.toml", "split.json", "log.jsonl"}
    assert_goes_on(run, tmp_path, whole)


@pytest.mark.parametrize("room", [0.5, 1.5])
def test_full_disk(tiny_data, tmp_path, whole, mount, room):
    """A disk with room for half a checkpoint, and for one, where the second, written beside it, does not fit."""
    state = {"model": whole, "rng": torch.get_rng_state()}
    save_checkpoint(tmp_path, state)
    size = (tmp_path / "checkpoint.pt").stat().st_size
    disk = mount("-t", "tmpfs", "-o", f"size={int(size * room) // 4096 * 4096}", "tmpfs")
    says = r"cannot be written \(No space left on device\); make room there"
    fails(begin(tiny_data, disk / "run", *OPTIONS), tmp_path, says)
    assert not list((disk / "run").glob(".*"))
    shutil.copytree(disk / "run", tmp_path / "run")
    if room > 1:
        assert load_checkpoint(tmp_path / "run", "sivt")["epoch"] == 1
    assert_goes_on(tmp_path / "run", tmp_path, whole)


def test_a_failed_write_keeps_the_checkpoint_before_it(tmp_path, mount, whole):
    disk = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    state = {"method": "sivt", "model": {"a": torch.ones(10)}, "stage": 0, "epoch": 1, "fingerprint": ""}
    state["rng"] = torch.get_rng_state()
    save_checkpoint(disk, state)
    before = (disk / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match="No space left"):
        save_checkpoint(disk, {**state, "model": {"a": torch.ones(1_000_000)}})
    assert (disk / "checkpoint.pt").read_bytes() == before
    assert [p.name for p in disk.iterdir()] == ["checkpoint.pt"]
    assert load_checkpoint(disk, "sivt")["epoch"] == 1


def test_cached_features_do_not_fit_the_disk(mount, monkeypatch):
    """Said when the room is taken, not by a bus error when a page of the mapping finds none."""
    disk = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    monkeypatch.setattr(features, "MEMORY_LIMIT", 0)
    with pytest.raises(UserError, match=r"no room for .* of cached features \(.*No space left"):
        features.FeatureCache(1000, (32, 32), disk)
    assert not list(disk.iterdir())


def test_read_only_disk(tiny_run, tiny_data, tmp_path, mount):
    """Commands that write there say so, at once; those that only read go on working."""
    disk = mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")
    shutil.copytree(tiny_run, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for args in (
        begin(tiny_data, disk / "new", *OPTIONS),
        ["eval", disk / "run", "--data", tiny_data],
        ["predict", disk / "run", tiny_data / "weave/test/good", "--out", disk / "out"],
        ["calibrate", disk / "run"],
        ["report", disk / "run", "--data", tiny_data],
        ["data", "synth", "--out", disk / "set"],
    ):
        fails(args, tmp_path, r"\(Read-only file system\)")
    predict = ["predict", disk / "run", tiny_data / "weave/test/good", "--out", tmp_path / "out", "--quiet"]
    assert finish(predict, tmp_path / "said") == (0, "")


def test_files_that_cannot_be_written(tmp_path):
    for write in (write_text, append_line):
        with pytest.raises(UserError, match=r"gone/x: cannot be written \(No such file"):
            write(tmp_path / "gone/x", "text")
    with pytest.raises(UserError, match="cannot be written"):
        require_writable(tmp_path / "gone")
    require_writable(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tiny_data, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    fails(begin(tiny_data, folder / "run", *OPTIONS), tmp_path, r"\(Permission denied\)")


def test_data_that_vanishes(tiny_data, tmp_path, whole):
    """Features are in memory by then, so that training ends, with its thresholds. To go on needs the data back."""
    data, run = tmp_path / "set", tmp_path / "run"
    shutil.copytree(tiny_data, data)
    code, said = finish(begin(data, run, *OPTIONS), tmp_path / "said", remove_in_epoch, data, 1)
    assert code == 0, said
    assert json.loads((run / "calibration.json").read_text())["images"] == 1
    fails(go_on(run, "--quiet"), tmp_path, f"{data}: no such folder")
    os.rename(f"{data}.away", data)
    assert_goes_on(run, tmp_path, whole)
    assert json.loads((run / "calibration.json").read_text())["images"] == 1
