"""Importing and using the room must not import torch, and importing it alone imports nothing heavy."""

import subprocess
import sys

import pytest

import vitlite.data


def modules_after(code):
    code += "\nimport sys\nprint(*sorted(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_use_does_not_import_torch(tmp_path):
    code = (
        "import vitlite.data as data\n"
        f"root = data.synthesize({str(tmp_path / 'set')!r}, categories='wood', size=32, train=2, good=1, defects=1)\n"
        "dataset = data.open_dataset(root)\n"
        "data.resize_image(data.read_image(dataset.train[0].path), (8, 8))\n"
        "data.read_mask(dataset.test[-1].mask)\n"
        "data.scan(dataset.train), data.list_images([root]), data.check(root).text()\n"
    )
    modules = modules_after(code)
    assert "vitlite.data.checking" in modules
    assert "torch" not in modules


def test_import_alone_is_lazy():
    assert not {"torch", "numpy", "PIL", "scipy"} & modules_after("import vitlite.data")


def test_public_names():
    assert set(vitlite.data.__all__) <= set(dir(vitlite.data))
    for name in vitlite.data.__all__:
        assert getattr(vitlite.data, name) is not None
    assert callable(vitlite.data.check)
    with pytest.raises(AttributeError, match="nothing"):
        _ = vitlite.data.nothing
