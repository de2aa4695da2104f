"""kill -9 while training: the run directory stays loadable, and resuming reaches the very same weights."""

import json
import random
import time

import pytest
import torch
from interruptions import begin, die_at_write, finish, go_on, start
from tiny_settings import TINY

from vitlite.engine.checkpoint import load_checkpoint
from vitlite.engine.settings import load_settings
from vitlite.errors import UserError

EPOCHS = 6
FILES = {"config.toml", "checkpoint.pt", "log.jsonl", "split.json", "good_scores.json", "calibration.json"}


def train(data, run):
    """The command that continues a run, or begins it if it has not got as far as its configuration."""
    return go_on(run) if (run / "config.toml").exists() else begin(data, run, "--set", f"epochs={EPOCHS}")


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """A run that was never interrupted, with the seconds that it took."""
    folder = tmp_path_factory.mktemp("whole")
    assert finish(train(tiny_data, folder / "warm"), folder / "said")[0] == 0
    began = time.monotonic()
    code, said = finish(train(tiny_data, folder / "run"), folder / "said")
    assert code == 0, said
    return folder / "run", time.monotonic() - began


def weights(run):
    return load_checkpoint(run, "sivt")["model"]


def log(run):
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in e.items() if key != "images_per_second"} for e in entries]


def assert_same(run, other):
    """Weights, losses and thresholds, bit for bit."""
    own, others = weights(run), weights(other)
    assert own.keys() == others.keys()
    assert all(torch.equal(own[name], others[name]) for name in own)
    assert log(run) == log(other)
    assert (run / "calibration.json").read_bytes() == (other / "calibration.json").read_bytes()
    assert {p.name for p in run.iterdir()} == FILES


def assert_loadable(run):
    """What a killed process left behind: nothing yet, or settings, and then no checkpoint yet or a whole one."""
    if not (run / "config.toml").exists():
        assert not (run / "checkpoint.pt").exists()
        return "nothing"
    assert load_settings(run).config.dim == TINY["dim"]
    try:
        state = load_checkpoint(run, "sivt")
    except UserError as error:
        assert "before its first checkpoint" in str(error)  # noqa: PT017 - either outcome is right
        return "no checkpoint"
    assert state["epoch"] < EPOCHS
    return f"epoch {state['epoch']} of stage {state['stage']}"


def kill_often(whole, data, folder, seeds):
    """A kill -9 for every seed, at a moment that it draws, in as many runs as it takes; all end as ``whole``."""
    reference, seconds = whole
    runs, found = [], []
    for seed in seeds:
        if not runs or (runs[-1] / "calibration.json").exists():
            runs.append(folder / f"run{len(runs)}")
        process = start(train(data, runs[-1]), folder / "said")
        process.join(random.Random(seed).uniform(0.02, 0.9) * seconds)
        process.kill()
        process.join()
        assert process.exitcode in (-9, 0), (folder / "said").read_text()
        found.append(assert_loadable(runs[-1]))
    for run in runs:
        code, said = finish(train(data, run), folder / "said")
        assert code == 0, said
        assert_same(run, reference)
    return found


def test_killed_at_random_moments(whole, tiny_data, tmp_path):
    kill_often(whole, tiny_data, tmp_path, range(4))


@pytest.mark.slow
def test_killed_twenty_times_at_random_moments(whole, tiny_data, tmp_path):
    found = kill_often(whole, tiny_data, tmp_path, range(100, 120))
    assert len(set(found)) > 2, found  # the moments did differ


@pytest.mark.parametrize("moment", ["within", "before", "after"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_killed_while_writing(whole, tiny_data, tmp_path, number, moment):
    """Within the first file (config.toml), the first checkpoint and a later one, or beside their renaming."""
    reference, _ = whole
    run = tmp_path / "run"
    assert finish(train(tiny_data, run), tmp_path / "said", die_at_write, number, moment)[0] == -9
    assert_loadable(run)
    left = [p.name for p in run.iterdir() if p.name.endswith(".tmp")]
    assert bool(left) == (moment != "after")
    code, said = finish(train(tiny_data, run), tmp_path / "said")
    assert code == 0, said
    assert_same(run, reference)


def test_killed_before_the_first_checkpoint_but_after_an_epoch(whole, tiny_data, tmp_path):
    """The log already holds lines, a cut one among them, and none of them may stay when training starts again."""
    run = tmp_path / "run"
    assert finish(train(tiny_data, run), tmp_path / "said", die_at_write, 2, "before")[0] == -9
    with open(run / "log.jsonl", "ab") as file:
        file.write(b'{"stage": "train", "stage_index": 0, "epo\xff')
    code, said = finish(train(tiny_data, run), tmp_path / "said")
    assert code == 0, said
    assert_same(run, whole[0])
