"""The operators as a folder of another library, under another name, beside an installed vitlite."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitlite.kernels import vendor

CLONE = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (CLONE / "csrc").exists(), reason="the C++ sources are in the clone only")

# One process, the other library first: prints which backends serve each, and compares what they compute.
BOTH = """
import torch
from mylib import operators as theirs
from vitlite import kernels as ours
import sys

# What they need is torch and numpy.
assert not {"triton", "numba", "scipy", "PIL", "click"} & set(sys.modules)

def use(kernels, name):
    tensors = [a.requires_grad_() for a in ours.operator(name).sample()]
    results = getattr(kernels, name)(*tensors)
    results = results if isinstance(results, tuple) else (results,)
    gradients = torch.autograd.grad(sum(a.sum() for a in results if a.is_floating_point()), tensors)
    return [*results, *gradients]

for name in ours.OPERATORS:
    for a, b in zip(use(ours, name), use(theirs, name), strict=True):
        torch.testing.assert_close(a, b)
    print(name, ours.backends(name)["auto"]["cpu"], theirs.backends(name)["auto"]["cpu"])
print(ours.backends("ssim")["unavailable"].get("cpp"))
print(theirs.backends("ssim")["unavailable"].get("cpp"))
"""


def write(folder):
    assert vendor.main([str(folder / "mylib" / "operators"), "--namespace", "mylib"]) == 0
    return folder


def run(*arguments, path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (path, CLONE)))}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=path)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_copy_under_another_name_serves_beside_vitlite(tmp_path, compiled):
    """Not compiled, it takes eager torch, and vitlite keeps its compiled operators."""
    *served, own, other = run("-c", BOTH, path=write(tmp_path))
    assert {line.split()[0]: line.split()[1:] for line in served}["memory_read"] == ["cpp", "eager"]
    assert own == "None"
    assert other == f"_C is not built: python {tmp_path}/mylib/operators/csrc/build.py compiles it"


@pytest.mark.slow
def test_a_compiled_copy_serves_beside_vitlite(tmp_path, compiled):
    build = write(tmp_path) / "mylib" / "operators" / "csrc" / "build.py"
    run(build, path=tmp_path)
    *served, own, other = run("-c", BOTH, path=tmp_path)
    assert {line.split()[0]: line.split()[1:] for line in served}["memory_read"] == ["cpp", "cpp"]
    assert own == other == "None"
    # Both have a level of their own.
    levels = "import torch, mylib.operators, vitlite.kernels\n"
    levels += "print(torch.ops.mylib.isa_level(0), torch.ops.vitlite.isa_level() == torch.ops.vitlite.isa_level(2))"
    assert run("-c", levels, path=tmp_path) == ["0 True"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("aten", "torch has operators of that name already"),
        ("vitlite", "torch has operators of that name already"),
        ("my-lib", "must be a name of ASCII letters"),
        ("class", "must be a name of ASCII letters"),
        ("größe", "must be a name of ASCII letters"),
    ],
)
def test_a_name_that_will_not_do_is_refused(tmp_path, capsys, name, says):
    assert vendor.main([str(tmp_path / "copy"), "--namespace", name]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"vendor: --namespace {name}: {says}")
    assert said.count("\n") == 1
    assert not (tmp_path / "copy").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.py").touch()
    for place in ("full", "full/mine.py"):
        assert vendor.main([str(tmp_path / place), "--namespace", "mylib"]) == 2
        assert capsys.readouterr().err == f"vendor: {tmp_path / place}: must be a new or an empty folder\n"
    monkeypatch.setattr(vendor, "HERE", tmp_path / "site-packages" / "kernels")
    assert vendor.main([str(tmp_path / "copy"), "--namespace", "mylib"]) == 2
    assert "not there; call this from a clone" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "mylib" / "operators").mkdir(parents=True)
    copy = write(tmp_path) / "mylib" / "operators"
    assert {"__init__.py", "csrc", "ssim", "LICENSE"} <= {path.name for path in copy.iterdir()}
    assert not [path for path in copy.rglob("*") if path.suffix == ".so" or path.name == "vendor.py"]
    assert [path.name for path in (tmp_path / "mylib").iterdir()] == ["operators"]
