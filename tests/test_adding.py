"""The worked examples of docs/adding-*.md: each is added to a copy of the tree, as its page says, and used.

A block with a title is a file: a new one, or lines ("+") that stand after or before lines that are there (" ").
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vitlite
from vitlite.methods import REGISTRY

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "cli", "bench")
# Runs command lines, or Python, with the package in the folder that is the first argument.
DRIVER = """
import json, shlex, sys
from importlib.machinery import PathFinder
sys.path.insert(0, sys.argv[1])
sys.meta_path.remove(PathFinder)
sys.meta_path.insert(0, PathFinder)  # before the finder of an editable installation
import vitlite
assert vitlite.__file__.startswith(sys.argv[1]), vitlite.__file__
for kind, text in json.loads(sys.argv[2]):
    if kind == "python":
        exec(compile(text, "page", "exec"), {})
    else:
        from vitlite.cli import main
        try:
            main(shlex.split(text)[1:])
        except SystemExit as stop:
            assert not stop.code, f"{text}: {stop.code}"
"""


def blocks(page):
    """(language, title, text) of the fenced blocks of a page; without a title it is an empty string."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


class Copy:
    """A copy of the tree, to which examples are added, and the package in it as it is installed."""

    def __init__(self, folder):
        self.tree, self.work = folder / "tree", folder / "work"
        for room in ("vitlite", *ROOMS, "csrc"):
            shutil.copytree(ROOT / room, self.tree / room, ignore=shutil.ignore_patterns("__pycache__", "results"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.tree / name)
        package = folder / "site/vitlite"
        package.mkdir(parents=True)
        for path in [*(self.tree / "vitlite").iterdir(), *(self.tree / room for room in ROOMS)]:
            (package / path.name).symlink_to(path)
        self.site = package.parent
        self.work.mkdir()

    def path(self, title):
        return self.tree / title

    def add(self, page):
        """Adds what a page shows. Returns the names of new files, and {name of a file: number of its new lines}."""
        new, lines = [], {}
        for language, title, text in blocks(page):
            if title and language == "diff":
                lines[title] = insert(self.path(title), text)
            elif title:
                assert not self.path(title).exists(), title
                self.path(title).parent.mkdir(exist_ok=True)
                self.path(title).write_text(text, encoding="utf-8")
                new.append(title)
        return new, lines

    def use(self, *steps, **variables):
        """Runs ("python", code) and ("vitlite", command line) in one process; returns what it prints."""
        command = [sys.executable, "-c", DRIVER, str(self.site), json.dumps(steps)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.work, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def insert(path, text):
    """Puts the "+" lines of a block where its other lines are in the file. Returns how many there are."""
    shown = text.splitlines()
    old = "\n".join(line[1:] for line in shown if not line.startswith("+"))
    new = "\n".join(line[1:] for line in shown)
    file = path.read_text(encoding="utf-8")
    assert f"\n{file}".count(f"\n{old}\n") == 1, f"{path}: these lines are not there, or several times:\n{old}"
    path.write_text(f"\n{file}".replace(f"\n{old}\n", f"\n{new}\n")[1:], encoding="utf-8")
    return sum(line.startswith("+") for line in shown)


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """A category in MVTec layout."""
    from vitlite.data import synthesize

    folder = tmp_path_factory.mktemp("parts")
    return synthesize(folder / "made", seed=1, size=64, categories=("weave",), train=10, good=3, defects=1) / "weave"


def shown(page, language):
    """The untitled blocks in a language."""
    return [text for found, title, text in blocks(page) if found == language and not title]


TINY = "--set weights=none --set image_size=64 --set epochs=2 --set sigma=1 --device cpu"


def one_file_and_one_line(copy, page, file):
    """Adds a page's example, which is a file and a line in its folder's ``__init__``. Returns the page's commands."""
    new, lines = copy.add(page)
    assert new == [file]
    assert lines == {str(Path(file).parent / "__init__.py"): 1}
    (commands,) = shown(page, "")
    return commands.splitlines()


def test_a_method(copy, parts):
    commands = one_file_and_one_line(copy, "adding-a-method.md", "vitlite/methods/squeeze.py")
    shutil.copytree(parts, copy.work / "parts")
    image = next((parts / "test/good").iterdir())
    refused = "import pytest, vitlite\nwith pytest.raises(vitlite.UserError, match='width=0: must be at least 1'):\n"
    copy.use(
        ("vitlite", f"{commands[0]} {TINY}"),
        ("vitlite", "vitlite eval runs/squeeze --device cpu"),
        ("vitlite", f"vitlite predict runs/squeeze {image} --out squeezed --device cpu"),
        ("python", f"{refused}    vitlite.train('parts', 'none', method='squeeze', width=0, device='cpu')"),
    )
    assert (copy.work / "squeezed/predictions.csv").is_file()
    assert (copy.work / "runs/squeeze/results.json").is_file()


def test_a_method_outside_the_package(parts, tmp_path, monkeypatch):
    """In a module of another project, registered from there."""
    ((text,),) = [[text for _, title, text in blocks("adding-a-method.md") if title.endswith("squeeze.py")]]
    (registered,) = shown("adding-a-method.md", "py")
    (tmp_path / "my_project").mkdir()
    (tmp_path / "my_project/squeeze.py").write_text(text)
    shutil.copytree(parts, tmp_path / "parts")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(REGISTRY, "squeeze", None)  # gone again after the test
    small = "weights='none', image_size=64, epochs=1, sigma=1.0, device='cpu', width=4"
    names = {}
    exec(registered.replace("width=4", small), names)
    assert math.isfinite(names["detector"].predict("parts/train/good/000.png").score)
    assert vitlite.load("runs/squeeze").method.__class__.__module__ == "my_project.squeeze"


@pytest.mark.slow
def test_a_backbone(copy, parts):
    commands = one_file_and_one_line(copy, "adding-a-backbone.md", "vitlite/backbones/gabor.py")
    shutil.copytree(parts, copy.work / "parts")
    network = "--set feature_size=8 --set dim=16 --set heads=2 --set encoder_depth=2 --set decoder_depth=1"
    maps = """
import pytest, torch, vitlite
backbone = vitlite.backbones.create("gabor")
maps = backbone(torch.rand(2, 3, 48, 64))
assert [tuple(a.shape) for a in maps] == [(2, c, 48 // s, 64 // s) for c, s in zip(backbone.channels, backbone.strides)]
assert backbone(torch.full((1, 3, 32, 32), 0.5))[0].abs().max() < 1e-6  # no texture, no response
with pytest.raises(vitlite.UserError, match="strides=5: gabor has 4, 8"):
    vitlite.backbones.create("gabor", strides=(5,))
"""
    printed = copy.use(
        ("python", maps),
        ("vitlite", f"{commands[0]} {TINY} {network}"),
        ("vitlite", "vitlite eval runs/gabor --device cpu"),
        ("vitlite", "vitlite doctor"),
    )
    assert "none needed (fixed filters)" in printed


OPERATOR = """
import numpy as np, pytest, torch
from vitlite.kernels import backends, l1_map
from vitlite.kernels.l1.reference import l1_map_numpy
table = backends("l1_map")
assert set(BACKENDS) <= set(table["available"]), table
for backend in BACKENDS:
    for shape in ((2, 3, 5, 7), (1, 1, 1, 300), (0, 3, 4, 4)):
        x, y = torch.rand(2, *shape, dtype=torch.float64).requires_grad_().unbind()
        oracle = l1_map_numpy(x.detach().numpy(), y.detach().numpy())
        for dtype, error in ((torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
            found = l1_map(x.to(dtype), y.to(dtype), backend=backend)
            assert found.dtype == dtype
            np.testing.assert_allclose(found.detach().double().numpy(), oracle, atol=error)
    x, y = (torch.rand(2, 3, 4, 5, dtype=torch.float64).transpose(2, 3).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: l1_map(a, b, backend=backend), (x, y))
    equal = x.detach().clone().requires_grad_()
    l1_map(equal, x.detach(), backend=backend).sum().backward()
    assert not equal.grad.any()
images = x.detach(), y.detach()
for backend, name in (("cpp", "l1_map"), ("triton", "triton_l1_map")):
    if backend in BACKENDS:
        forward, backward = (getattr(torch.ops.vitlite, f"{name}_{way}").default for way in ("forward", "backward"))
        torch.library.opcheck(forward, images)
        torch.library.opcheck(backward, (images[0].sum(1), *images, True, False))
with pytest.raises(ValueError, match="y: shape"):
    l1_map(x, y[:1])
"""


def add_operator(copy):
    new, lines = copy.add("adding-an-operator.md")
    assert {Path(name).parent for name in new} == {Path("kernels/l1"), Path("csrc/cpu")}
    assert new.count("csrc/cpu/l1.cpp") == 1
    # Its two schemas, its name, its case.
    assert lines == {"csrc/library.cpp": 2, "kernels/__init__.py": 1, "bench/_cases.py": 1}
    doctor, bench = shown("adding-an-operator.md", "")[0].splitlines()
    return ("vitlite", doctor), ("vitlite", f"{bench} --check --device cpu")


def test_an_operator(copy):
    """Without a compiler: eager torch, and Triton in its interpreter."""
    doctor, bench = add_operator(copy)
    backends = ("eager", "triton") if sys.platform == "linux" else ("eager",)
    printed = copy.use(("python", f"BACKENDS = {backends}\n{OPERATOR}"), doctor, TRITON_INTERPRET="1")
    assert re.search(r"l1_map: (eager|triton) on cpu", printed)
    assert "1 of 1 cases are right" in copy.use(bench)


@pytest.mark.slow
def test_an_operator_compiled(copy):
    add_operator(copy)
    for old in (copy.tree / "kernels").glob("_C*"):
        old.unlink()
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    environment = {**os.environ, "VITLITE_CUDA": "0", "VITLITE_NO_EXT": "0"}
    done = subprocess.run(build, cwd=copy.tree, env=environment, capture_output=True, text=True)
    assert list((copy.tree / "kernels").glob("_C.*")), done.stdout + done.stderr
    printed = copy.use(("python", f"BACKENDS = ('cpp', 'eager')\n{OPERATOR}"), ("vitlite", "vitlite doctor"))
    assert "l1_map: cpp on cpu" in printed


@pytest.mark.slow
def test_a_layout(copy, parts):
    commands = one_file_and_one_line(copy, "adding-a-layout.md", "vitlite/data/layouts/table.py")
    station = copy.work / "station"
    rows = []
    for path in sorted(parts.glob("*/*/*.png")):
        split, kind, name = path.relative_to(parts).parts
        if split != "ground_truth":
            rows.append(f"images/{split}-{kind}-{name},{split},{kind}")
            (station / "images").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, station / rows[-1].partition(",")[0])
    (station / "labels.csv").write_text("\n".join(["file,split,kind", *rows]) + "\n")
    check, train = commands
    network = "--set backbone=image --set feature_size=8 --set dim=16 --set heads=2 --set encoder_depth=2"
    code = f"""
import pathlib, pytest, vitlite, vitlite.data
found = vitlite.data.open_dataset("station", need_test=True)
assert (found.layout, found.categories, len(found.train), len(found.test)) == ("table", ("station",), 10, 6)
assert [s.defect for s in found.test if s.label] == ["missing", "scratch", "spot"], found.test
table = pathlib.Path("station/labels.csv")
table.write_text(table.read_text() + "images/x.png,both,good\\n")
with pytest.raises(vitlite.UserError, match="labels.csv, line {len(rows) + 2}: needs a file"):
    vitlite.data.open_dataset("station")
table.write_text("file,split,kind\\nimages/x.png,test,good\\n")
with pytest.raises(vitlite.UserError, match="labels.csv: lists no images to train on"):
    vitlite.data.open_dataset("station")
"""
    printed = copy.use(
        ("vitlite", check),
        ("vitlite", f"{train} {TINY} {network}"),
        ("vitlite", "vitlite eval runs/station"),
        ("python", code),
    )
    assert "table of images" in printed
