"""The package map: what an installation holds, and under which names."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_no_plain_names_are_installed(tmp_path):
    code = "import importlib.util as u; print([u.find_spec(n) is not None for n in ('kernels', 'cli', 'bench')])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.strip() == "[False, False, False]"


def test_rooms_are_submodules():
    for name in ("kernels", "cli", "bench"):
        assert importlib.util.find_spec(f"vitlite.{name}") is not None


def test_unknown_attribute():
    import vitlite

    with pytest.raises(AttributeError, match="nonsense"):
        _ = vitlite.nonsense


def test_regular_install_without_a_compiler(tmp_path):
    """`pip install .` in an environment with neither torch nor compiler in the build: a pure Python package."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path / "source"
    ignore = ("git", "venv", "build", "site", "*.egg-info", "__pycache__", "*.so", "runs", "demo", ".*")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*ignore))
    environment = {**os.environ, "VITLITE_NO_EXT": "1"}
    subprocess.run([*command, "--target", tmp_path / "site", source], check=True, env=environment, cwd=tmp_path)
    site = tmp_path / "site"
    assert sorted(p.name for p in site.iterdir() if p.is_dir() and not p.name.startswith("vitlite-")) in (
        ["bin", "vitlite"],
        ["vitlite"],
    )
    for part in ("kernels/__init__.py", "cli/__init__.py", "bench/__main__.py", "metrics/__init__.py", "py.typed"):
        assert (site / "vitlite" / part).is_file(), part
    assert not list(site.rglob("*.so"))
    (about,) = site.glob("vitlite-*.dist-info/METADATA")
    needed = [line for line in about.read_text().splitlines() if line.startswith("Requires-Dist: triton")]
    assert len(needed) == 2  # torch's CUDA wheels bring it; without a GPU it is 999 MB for nothing
    assert all("extra ==" in line for line in needed)
    for system in ("MacOS", "Microsoft :: Windows", "POSIX :: Linux"):
        assert f"Classifier: Operating System :: {system}" in about.read_text()


@pytest.mark.parametrize("folder", ["vitlite", "kernels", "cli", "bench"])
def test_every_function_is_annotated(folder):
    """Also beside Triton's kernels, in the files that mypy does not ask: Triton's language has no annotations."""
    bare = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and "triton.jit" not in map(ast.unparse, node.decorator_list):
                arguments = [a for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
                if node.returns is None or any(a.annotation is None for a in arguments):
                    bare.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert bare == []
