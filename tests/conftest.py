"""Fixtures that several rooms share."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_settings import TINY, WITH_BACKBONE

# Their few tests take long: they come first, so that no worker is left with one of them at the end.
LONG = {"test_docs", "test_adding", "test_cuda_emulated", "test_cuda_build", "test_triton_ahead", "test_onnx_file"}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session")
def real_data():
    """The folder with real data sets, from VITLITE_TEST_DATA."""
    folder = os.environ.get("VITLITE_TEST_DATA")
    if not folder:
        pytest.skip("VITLITE_TEST_DATA is not set: no real images to test on")
    return Path(folder)


@pytest.fixture
def put():
    """put(path, array=None, **save options) writes an image and its folders; by default each path gets another one."""

    def write(path, array=None, mode=None, **options):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if array is None:
            seed = [b for part in path.parts[-5:] for b in os.fsencode(part)]
            array = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array))
        (image.convert(mode) if mode else image).save(path, **options)
        return path

    return write


@pytest.fixture(scope="module")
def fuzz_folder(tmp_path_factory):
    """A folder for the files that a module's fuzz tests write, one over the other."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A small synthetic data set of one category, with its root."""
    from vitlite.data import synthesize

    folder = tmp_path_factory.mktemp("data") / "set"
    return synthesize(folder, seed=1, size=64, categories=("weave",), train=10, good=4, defects=2)


def trained(settings, data, run):
    """A finished run of SIVT with these settings."""
    from vitlite.engine.settings import RunSettings, apply_overrides, preset_config
    from vitlite.engine.train import train

    config = apply_overrides(preset_config("sivt", "quick"), [f"{k}={v}" for k, v in settings.items()])
    train(RunSettings("sivt", str(data), "weave", "quick", 0, config), run, device="cpu")
    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_data):
    """A finished run of the tiny SIVT; tests read it and write elsewhere."""
    return trained(TINY, tiny_data, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def backbone_run(tmp_path_factory, tiny_data):
    """The same with a backbone."""
    return trained(WITH_BACKBONE, tiny_data, tmp_path_factory.mktemp("runs") / "backbone")
