"""Scoring an exported file in a process where torch, and all else that training needs, cannot be imported."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlite.engine.detector import Detector
from vitlite.engine.predict import predict

RUN = Path(__file__).parents[1] / "old_run/runs/anovit"
MODEL = RUN / "model.onnx"
BLOCKED = """
import importlib.abc, sys
NAMES = ("torch", "triton", "numba", "onnx", "onnxscript", "sklearn", "skimage")

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from vitlite.cli import main
main(sys.argv[1:])
"""


def blocked(*args):
    command = [sys.executable, "-c", BLOCKED, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def inputs(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(np.full((40, 90), 128, np.uint8)).save(folder / "grey, wide.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    return [tiny_data / "weave/test/scratch", tiny_data / "weave/test/good", folder]


def test_predict(inputs, tmp_path):
    result = blocked("predict", MODEL, *inputs, "--out", tmp_path / "without", "--maps")
    assert result.returncode == 3, result.stderr
    assert "1 not read" in result.stdout
    predict(Detector(RUN, "cpu"), [str(i) for i in inputs], tmp_path / "with", maps=True)
    want, got = (rows_of(tmp_path / name / "predictions.csv") for name in ("with", "without"))
    assert len(got) == len(want) > 6
    for one, other in zip(got, want):
        assert one["file"] == other["file"]
        assert one["error"] == other["error"]
        if one["error"]:
            continue
        assert float(one["score"]) == pytest.approx(float(other["score"]), rel=1e-4)
        assert one["verdict"] == other["verdict"]
        maps = [np.array(Image.open(tmp_path / name / one["map"])) for name in ("with", "without")]
        np.testing.assert_allclose(maps[1], maps[0], atol=1e-4 * maps[0].max())
        assert (tmp_path / "without" / one["overlay"]).is_file()


def test_fail_on_defect_is_the_same(tiny_data, tmp_path):
    images = tiny_data / "weave/test/scratch"
    rows = predict(Detector(RUN, "cpu"), [str(images)], tmp_path / "a")
    expected = int(any(row["verdict"] == "defect" for row in rows))
    result = blocked("predict", MODEL, images, "--out", tmp_path / "b", "--fail-on-defect", "--no-overlays")
    assert result.returncode == expected, result.stderr


def test_what_needs_torch_says_so(tiny_data, tmp_path):
    result = blocked("predict", RUN, tiny_data / "weave/test/good", "--out", tmp_path / "o")
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert "needs torch" in line
    assert not (tmp_path / "o").exists()


def test_damaged_file(tmp_path, tiny_data):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    result = blocked("predict", tmp_path / "bad.onnx", tiny_data / "weave/test/good", "--out", tmp_path / "o")
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert "bad.onnx" in line
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_an_installation_for_scoring(inputs, tmp_path):
    """The line of docs/export.md in a new environment: small, without torch, and it scores."""
    root = Path(__file__).parents[2]
    (line,) = re.findall(r"^pip install --no-deps .*$", (root / "docs/export.md").read_text(encoding="utf-8"), re.M)
    source = tmp_path / "source"
    left_out = ("venv", "build", "*.egg-info", "__pycache__", "*.so", "runs", "demo", ".git", ".venv*")
    shutil.copytree(root, source, ignore=shutil.ignore_patterns(*left_out))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "new"], check=True)
    binaries = tmp_path / "new" / ("Scripts" if os.name == "nt" else "bin")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment["PATH"] = os.pathsep.join([str(binaries), environment["PATH"]])
    subprocess.run(line, shell=True, check=True, cwd=source, env=environment)
    (site,) = (tmp_path / "new").rglob("site-packages")
    assert not (site / "torch").exists()
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"{size / 1e6:.0f} MB")
    assert size < 400e6
    command = ["vitlite", "predict", MODEL, *inputs, "--out", tmp_path / "scored"]
    done = subprocess.run([*map(str, command)], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr  # one of the images is broken
    assert sum(bool(row["score"]) for row in rows_of(tmp_path / "scored/predictions.csv")) > 5
