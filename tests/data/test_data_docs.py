"""The page on data layouts: every tree on it is read as the layout that it stands for, and its commands work."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archive_files import write_cifar, write_mnist
from tiny_settings import TINY

from vitlite import data
from vitlite.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
LAYOUTS = {
    "parts": "folder",
    "mvtec": "mvtec",
    "mvtec2": "mvtec2",
    "loco": "loco",
    "btad": "btad",
    "visa": "visa",
    "KolektorSDD2": "ksdd2",
    "mnist": "mnist",
    "cifar10": "cifar10",
    "animals": "classes",
}
TABLE = """\
object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
"""


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def files_of(tree):
    """The paths that an indented tree stands for."""
    folders, found = [], []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [line.strip().rstrip("/")]
        if not line.endswith("/"):
            found.append("/".join(folders))
    return found


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return tmp_path_factory.mktemp("docs")


@pytest.fixture(autouse=True)
def written(shelf, put, monkeypatch):
    monkeypatch.chdir(shelf)
    mask = np.zeros((12, 16), np.uint8)
    mask[2:6, 3:9] = 255
    for name in (name for tree in blocks("tree") for name in files_of(tree)):
        path, root = Path(name), Path(name).parts[0]
        if path.exists():
            continue
        if root == "mnist":
            write_mnist(Path(root), [0, 1, 1, 1, 2], [1, 2, 1, 0, 0, 0, 0, 1])
        elif root == "cifar10":
            write_cifar(Path(root), names=["airplane", *map(str, range(1, 10))])
        elif path.suffix == ".csv":
            path.parent.mkdir(parents=True)
            path.write_text(TABLE)
        elif "GT" in name:
            put(path, mask * ("20001" in name))
        else:
            put(path, mask if {"ground_truth", "Masks"} & set(path.parts) else None)


def test_every_layout_has_a_tree():
    assert {files_of(tree)[0].split("/")[0] for tree in blocks("tree")} == set(LAYOUTS)


@pytest.mark.parametrize("root", LAYOUTS)
def test_trees_and_training_commands(root):
    """What the page trains on is a data set of that layout; where there are masks, one marks something."""
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines() if f"--data {root} " in line]
    (training,) = [command for command in commands if command[:2] == ["vitlite", "train"]]
    category = training[training.index("--category") + 1] if "--category" in training else None
    dataset = data.open_dataset(root, category, need_test=root != "parts")
    assert dataset.layout == LAYOUTS[root]
    assert dataset.train
    if dataset.test:
        assert {sample.label for sample in dataset.test} == {0, 1}
    masks = [data.read_mask(sample.mask) for sample in dataset.test if sample.mask]
    assert bool(masks) == (root in ("mvtec", "mvtec2", "loco", "btad", "visa", "KolektorSDD2"))
    assert all(mask.any() for mask in masks)


@pytest.mark.parametrize("trained", [("loco", "mnist"), pytest.param(tuple(LAYOUTS), marks=pytest.mark.slow)])
def test_the_commands_run(shelf, trained, monkeypatch, capsys):
    """In the page's order, with a detector that trains in a second; it is trained on two of the layouts, or on all."""
    from vitlite.methods.sivt import SIVT

    tiny = {**TINY, "steps": 1}
    monkeypatch.setitem(SIVT.presets, "quick", replace(SIVT.presets["quick"], **tiny))
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert sum(line.startswith("vitlite data check ") for line in lines) == len(LAYOUTS)
    assert sum(line.startswith("vitlite train ") for line in lines) == len(LAYOUTS)
    for written in ("runs", "scored", "surfaces", "drawn"):  # by the same test, of other layouts
        shutil.rmtree(shelf / written, ignore_errors=True)
    for line in lines:
        words = shlex.split(line)
        if words[1] == "train" and words[words.index("--data") + 1] not in trained:
            continue
        with pytest.raises(SystemExit) as ended:
            main(words[1:])
        assert ended.value.code in (0, None), line
        out = capsys.readouterr().out
        if words[1:3] == ["data", "check"]:
            assert out.startswith(f"{words[3]}: ")
            assert "warning" not in out, out
    assert (Path("scored") / "00007.png").is_file()


def test_the_python_examples(capsys):
    for code in blocks("python"):
        exec(compile(code, str(PAGE), "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith("mvtec 2 0 2 0/255")
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(data.DRAWN)
