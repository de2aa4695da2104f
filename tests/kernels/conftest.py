"""What the tests of all operators share."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CLONE = Path(__file__).parents[2]
LEVELS = {"generic": 0, "avx2": 1, "avx512": 2}


@pytest.fixture(autouse=True)
def poisoned():
    """Fills whatever is allocated but not written with not-a-number, so that a forgotten element shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _one_thread():
    """The tests make many tiny calls; those that are about threads set their number themselves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def compiled():
    """Skips where the compiled operators are missing, and says why they are."""
    from vitlite.kernels import _extension

    if _extension.errors["_C"] is not None:
        pytest.skip(_extension.errors["_C"])


@pytest.fixture(params=LEVELS)
def level(request, compiled):
    """Runs a test with each instruction set that the processor has."""
    wanted = LEVELS[request.param]
    if torch.ops.vitlite.isa_level(wanted) != wanted:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    torch.ops.vitlite.isa_level(max(LEVELS.values()))


@pytest.fixture
def set_up(tmp_path):
    """Builds a copy of the sources under an environment: (folder of the package, build information, what was said), or
    what was said if it is to fail."""
    if not (CLONE / "setup.py").exists():
        pytest.skip("not a clone")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CLONE / name, tmp_path)
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "_build_info.json")
    for name in ("vitlite", "kernels", "cli", "bench", "csrc"):
        shutil.copytree(CLONE / name, tmp_path / name, ignore=ignored)

    def build(*commands, fails=False, **environment):
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build", "--build-base", "out", "--build-lib", "out/lib", *commands],
            cwd=tmp_path,
            env={**os.environ, "VITLITE_NO_EXT": "", **environment},
            capture_output=True,
            text=True,
        )
        assert (done.returncode != 0) == fails, done.stderr
        if fails:
            return done.stderr
        installed = tmp_path / "out" / "lib"
        info = json.loads((installed / "vitlite" / "kernels" / "_build_info.json").read_text())
        return installed, info, done.stderr

    return build
