"""The operators in other programs, as docs/embedding.md says: several processes, and C++ without Python."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitlite.kernels import SSIM

CLONE = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CLONE / "examples").exists(), reason="the examples are in the clone only"),
]


def run(*command, **options):
    """What a command prints, with this Python first in the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(CLONE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=CLONE, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_processes_have_the_gradients_of_one():
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    printed = run(*launch, "examples/distributed_memory.py")
    differences = [float(number) for number in re.findall(r"differ by at most ([\d.e+-]+)", printed)]
    assert len(differences) == 2
    assert max(differences) < 1e-6


def test_a_program_in_cpp_calls_an_operator_and_runs_a_package(compiled, tmp_path):
    """By the commands of the page, with a package of the program that the page exports."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    images = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    batch = torch.export.Dim("batch")
    program = torch.export.export(SSIM(), images, dynamic_shapes=({0: batch}, {0: batch}))
    torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    page = (CLONE / "docs" / "embedding.md").read_text(encoding="utf-8")
    commands = re.search(r"^```text\n(TORCH=.*?)^```", page, re.DOTALL | re.MULTILINE)[1]
    commands = commands.replace("-o host", f"-o {tmp_path}/host").replace("./host", f"{tmp_path}/host")
    printed = run("bash", "-e", "-c", commands.replace("model.pt2", f"{tmp_path}/model.pt2"))
    found = dict(line.split() for line in printed.splitlines())
    assert float(found["same"]) == float(found["package"]) == 1
    assert -1 < float(found["other"]) < 0.9
