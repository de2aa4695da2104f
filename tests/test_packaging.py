"""The package map, the direction of imports, and what stays lazy."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room may import vitlite's rooms to the right of it; tests and bench may see all.
ALLOWED = {
    "kernels": {"vitlite.kernels"},
    "vitlite": {"vitlite", "vitlite.kernels"},
    "cli": {"vitlite", "vitlite.kernels", "vitlite.cli", "vitlite.bench"},
}
NO_TORCH = ("metrics", "data")


def room_of(module):
    rooms = ("vitlite.kernels", "vitlite.cli", "vitlite.bench")
    return next((r for r in rooms if (module + ".").startswith(r + ".")), "vitlite")


def imported(path):
    """Absolute names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder):
    # `python -m vitlite` is a door to the command line, not a part of the library.
    files = [p for p in (ROOT / folder).rglob("*.py") if p != ROOT / "vitlite" / "__main__.py"]
    assert files
    for path in files:
        for module in imported(path):
            if module.split(".")[0] == "vitlite":
                assert room_of(module) in ALLOWED[folder], f"{path.relative_to(ROOT)} imports {module}"


def test_kernels_import_nothing_of_vitlite_by_name():
    for path in (ROOT / "kernels").rglob("*.py"):
        assert not [m for m in imported(path) if m.split(".")[0] == "vitlite"], path


@pytest.mark.parametrize("room", NO_TORCH)
def test_rooms_without_torch(room):
    for path in (ROOT / "vitlite" / room).rglob("*.py"):
        assert not [m for m in imported(path) if m.split(".")[0] == "torch"], path


def modules_after(code):
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import vitlite",
        "import vitlite.metrics, vitlite.data",
        "import vitlite.cli\ntry: vitlite.cli.main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_light_imports_leave_torch_alone(code):
    loaded = modules_after(code)
    assert "vitlite" in loaded
    assert not {"torch", "numba"} & loaded


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
    ignore = ("git", "venv", "build", "*.egg-info", "__pycache__", "*.so", "runs", "demo", ".git", ".venv*")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*ignore))
    environment = {**os.environ, "VITLITE_NO_EXT": "1"}
    subprocess.run([*command, "--target", tmp_path / "site", source], check=True, env=environment, cwd=tmp_path)
    site = tmp_path / "site"
    assert sorted(p.name for p in site.iterdir() if p.is_dir() and not p.name.startswith("vitlite-")) in (
        ["bin", "vitlite"],
        ["vitlite"],
    )
    for part in ("kernels/__init__.py", "cli/__init__.py", "bench/__main__.py", "metrics/__init__.py"):
        assert (site / "vitlite" / part).is_file(), part
    assert not list(site.rglob("*.so"))
