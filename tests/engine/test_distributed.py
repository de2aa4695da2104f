"""Training on several processes, and in several parts of a batch, is training on one."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from commands import vitlite
from tiny_settings import RECONSTRUCTION, TINY_OPTIONS, options_of

from vitlite.engine import train as training
from vitlite.engine.distributed import Team
from vitlite.engine.settings import load_settings


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_every_image_counts_once():
    batch = torch.arange(5)
    parts = [Team(rank, 2).part(batch) for rank in range(2)]
    assert [part.tolist() for part, _ in parts] == [[0, 1, 2], [3, 4]]
    assert [count for _, count in parts] == [3, 2]
    alone = [Team(rank, 3).part(batch[:1]) for rank in range(3)]
    assert [count for _, count in alone] == [1, 0, 0]
    assert all(len(part) == 1 for part, _ in alone)


def test_one_process_needs_no_sum():
    values = {"loss": torch.tensor(1.0)}
    assert Team().add_up([], values) is values
    Team().wait()


# Without the memory, whose shrinkage makes a jump of a rounding error at its threshold.
MEMCA = {"image_size": 32, "patch": 8, "dim": 16, "depth": 1, "heads": 2, "memory": "false", "augment": "none"}
MEMCA |= {"schedule": "constant", "warmup_epochs": 0, "lr": 0.00001}  # steps at which Adam does not magnify rounding
OPTIONS = {"sivt": TINY_OPTIONS, "memca": options_of(MEMCA)}


def run(*command):
    """A training, which has to succeed, in two processes by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", 0, "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = [sys.executable, *launcher, *command]
    done = subprocess.run(list(map(str, whole)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("method", [pytest.param("sivt", marks=pytest.mark.slow), "memca"])
def test_two_processes_reach_the_losses_of_one(tiny_run, tiny_data, tmp_path, method):
    """Nine training images in batches of four: the last one gives one process an image and the other none.

    MemCA has a batch norm, whose statistics are of all processes' images. One process prints and logs.
    """
    options = [*OPTIONS[method], "--set", "batch_size=4", "--set", "epochs=3", "--set", "holdout=0.1"]
    command = ["train", "--method", method, *options, "--data", tiny_data, "--device", "cpu", "--out"]
    for out, err in (vitlite(*command, tmp_path / "1"), run("-m", "vitlite", *command, tmp_path / "2")):
        assert out.count("trained:") == 1, out
        assert err.count("data: 9 good images") == 1, err
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(one) == 3
    # Each process's own statistics would move the first of MemCA's losses by 2e-3. Adam magnifies rounding later.
    assert one[0] == pytest.approx(two[0], rel={"sivt": 2e-5, "memca": 1e-4}[method])
    assert one == pytest.approx(two, rel={"sivt": 2e-5, "memca": 5e-4}[method])


STOPPING = """
import os, sys, torch
from torch import distributed
from vitlite.engine import loop
from vitlite.cli import main

stop, *arguments = sys.argv[1:]
loop.SECONDS_BETWEEN_CHECKPOINTS = -1
step = loop.Loop.train_step

def cut(self, optimizer, indices, rate):
    if self.epoch == int(stop):
        sys.exit(0)
    os.write(1, f"drawn {torch.rand(1).item()}\\n".encode())  # in one piece, beside the other process's
    return step(self, optimizer, indices, rate)

dissolve = distributed.destroy_process_group

def dissolve_and_list():
    dissolve()
    names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
    os.write(1, f"threads {[name for name in names if 'gloo' in name]}\\n".encode())

distributed.destroy_process_group = dissolve_and_list
loop.Loop.train_step = cut
main(arguments)
"""


@pytest.mark.slow
def test_a_resumed_run_of_two_processes_reaches_the_same_weights(tiny_data, tmp_path):
    """Nine images in batches of three, so that one process has two of them; each is turned and mirrored at random."""
    script = tmp_path / "stopping.py"
    script.write_text(STOPPING)
    tiny = {**RECONSTRUCTION["anovit"], "batch_size": 3}
    options = ["--method", "anovit", *options_of(tiny), "--data", tiny_data, "--device", "cpu"]
    printed = ""
    for stop, out, arguments in ((9, "whole", options), (2, "cut", options), (9, "cut", ["--resume"])):
        said, _ = run(script, stop, "train", *arguments, "--out", tmp_path / out)
        printed = printed or said
    one, two = (torch.load(tmp_path / out / "checkpoint.pt", weights_only=True)["model"] for out in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [line.split()[-1] for line in printed.splitlines() if line.startswith("drawn")]
    assert len(drawn) == len(set(drawn)) == 18  # other numbers at every step and in each process
    # A thread that outlives the process group can abort the process at its end.
    assert [line for line in printed.splitlines() if line.startswith("threads")] == 2 * ["threads []"]


@pytest.mark.parametrize("parts", [2, 3, 20])
def test_accumulated_gradients_are_those_of_the_batch(tiny_run, tmp_path, monkeypatch, parts):
    """With the same split for every part; in training each part draws its own."""
    settings = load_settings(tiny_run)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(torch, "randperm", _fixed_for(torch.randperm, order))
    training.train(settings, tmp_path / "whole", device="cpu")
    parted = replace(settings, config=replace(settings.config, accumulate=parts))
    training.train(parted, tmp_path / "parts", device="cpu")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def _fixed_for(randperm, order):
    return lambda n, **options: order.clone() if n == len(order) else randperm(n, **options)


@pytest.mark.slow
def test_compiled_loss_trains_to_the_same(tiny_run, tmp_path):
    settings = load_settings(tiny_run)
    compiled = replace(settings, config=replace(settings.config, compile=True))
    training.train(compiled, tmp_path / "run", device="cpu")
    assert losses(tmp_path / "run") == pytest.approx(losses(tiny_run), rel=1e-3)
