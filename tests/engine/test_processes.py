"""Detectors in other processes: pickled, spawned and forked, after the parent has scored with two threads."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vitlite
from vitlite.data import list_images

OLD_FILE = Path(__file__).parents[1] / "old_run/runs/anovit/model.onnx"

# Started by itself: OpenMP's number of threads is fixed when a process begins, and the parent has to have used them.
PARENT = """
import json, multiprocessing, pickle, sys
import vitlite
from vitlite.errors import UserError

def score(detector, files):
    try:
        return [p.score for p in detector.predict(files)]
    except UserError as error:
        return str(error)

def with_copy(data, files):
    return score(pickle.loads(data), files)

def with_own(path, files):
    return score(vitlite.load(path), files)

def with_global(files):
    return score(detector, files)

if __name__ == "__main__":
    path, methods, *files = sys.argv[1:]
    detector = vitlite.load(path)
    found = {"parent": score(detector, files)}
    for method in methods.split():
        with multiprocessing.get_context(method).Pool(1) as pool:
            calls = {"given": (score, (detector, files)), "copy": (with_copy, (pickle.dumps(detector), files)),
                     "own": (with_own, (path, files))}
            if method == "fork":
                calls = {"global": (with_global, (files,))} | calls
            for name, (function, arguments) in calls.items():
                found[f"{name} {method}"] = pool.apply(function, arguments)
    print(json.dumps(found))
"""

LOADER = """
import json, sys
import torch, vitlite
from torch.utils.data import DataLoader, Dataset
from vitlite.errors import UserError

class Scores(Dataset):
    def __init__(self, detector, files):
        self.detector, self.files = detector, files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        if isinstance(self.detector, str):  # each worker loads its own
            self.detector = vitlite.load(self.detector)
        return self.detector.predict(self.files[index])

def through(detector, files, method):
    loader = DataLoader(Scores(detector, files), batch_size=None, num_workers=2, multiprocessing_context=method)
    try:
        return [prediction.score for prediction in loader]
    except UserError as error:
        return str(error)

if __name__ == "__main__":
    path, method, *files = sys.argv[1:]
    detector = vitlite.load(path)
    found = {"parent": [prediction.score for prediction in detector.predict(files)]}
    found["own"] = through(path, files, method)
    found["global"] = through(detector, files, method)
    print(json.dumps(found))
"""


@pytest.fixture(params=["run", "onnx"])
def source(request, backbone_run):
    """A run, and an exported file."""
    if request.param == "run":
        return backbone_run
    pytest.importorskip("onnxruntime")
    return OLD_FILE


@pytest.fixture(scope="module")
def files(tiny_data):
    return [str(path) for path in list_images(tiny_data / "weave" / "test")[:3]]


def in_workers(tmp_path, path, method, files, parent=PARENT):
    """What each way to use a detector gives in a worker: scores, or the error."""
    script = tmp_path / "parent.py"
    script.write_text(parent)
    command = [sys.executable, str(script), str(path), method, *files]
    ended = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_pickle_scores_the_same_without_the_files(source, files, tmp_path):
    path = tmp_path / source.name
    (shutil.copytree if source.is_dir() else shutil.copy)(source, path)
    detector = vitlite.load(path, "cpu")
    detector.calibration["image_threshold"] = -1.0  # what is in memory counts, not the file
    want = detector.predict(files)
    data = pickle.dumps(detector)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = pickle.loads(data).predict(files)
    assert [p.score for p in found] == [p.score for p in want]
    assert all(p.is_defect for p in found)
    assert [p.map.tobytes() for p in found] == [p.map.tobytes() for p in want]


@pytest.mark.parametrize("methods", ["spawn fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_workers_score_as_their_parent(source, methods, files, tmp_path):
    found = in_workers(tmp_path, source, methods, files)
    want = found.pop("parent")
    if source.is_dir() and "fork" in methods.split():
        assert "loaded before a fork" in found.pop("global fork")
    assert len(found) >= 3
    for how, scores in found.items():
        assert scores == pytest.approx(want, rel=1e-5), how


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_workers_of_a_data_loader(source, method, files, tmp_path):
    """Of each way to start them; they are two, and every answer comes back whole."""
    found = in_workers(tmp_path, source, method, files, LOADER)
    want = found.pop("parent")
    if source.is_dir() and method == "fork":
        assert "loaded before a fork; load it in each worker" in found.pop("global")
    for how, scores in found.items():
        assert scores == pytest.approx(want, rel=1e-5), how
