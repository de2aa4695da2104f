"""`vitlite data corrupt`: the contact sheet shows what training sees."""

import numpy as np
import pytest
import torch
from commands import vitlite
from PIL import Image

from vitlite.nn.corruption import corrupt
from vitlite.report.corruption import GAP, SIZE


def cells(path):
    """The sheet's images, (rows, columns, S, S, 3)."""
    sheet = np.asarray(Image.open(path))
    step = SIZE + GAP
    assert (sheet.shape[0] - GAP) % step == (sheet.shape[1] - GAP) % step == 0
    starts = [range(GAP, length - 1, step) for length in sheet.shape[:2]]
    return np.array([[sheet[y : y + SIZE, x : x + SIZE] for x in starts[1]] for y in starts[0]])


def test_sheet(tiny_data, tmp_path):
    out = tmp_path / "sheet.png"
    vitlite("data", "corrupt", tiny_data, "--out", out, "--count", 5, "--seed", 4)
    original, corrupted, label = cells(out)
    assert len(original) == 5
    differs = (original != corrupted).any(-1)
    assert differs.any()
    assert np.array_equal(label, np.where(differs, 255, 0)[..., None].repeat(3, -1))
    images = torch.from_numpy(original.copy()).permute(0, 3, 1, 2).float() / 255
    want = corrupt(images, generator=torch.Generator().manual_seed(4))[0]
    assert np.array_equal(corrupted, (want * 255).round().byte().permute(0, 2, 3, 1).numpy())
    again, other = tmp_path / "again.png", tmp_path / "other.png"
    vitlite("data", "corrupt", tiny_data, "--out", again, "--count", 5, "--seed", 4)
    vitlite("data", "corrupt", tiny_data, "--out", other, "--count", 5, "--seed", 5)
    assert out.read_bytes() == again.read_bytes() != other.read_bytes()


def test_fewer_images_than_asked_for(tiny_data, tmp_path):
    vitlite("data", "corrupt", tiny_data / "weave", "--out", tmp_path / "sheet.png", "--count", 50)
    assert cells(tmp_path / "sheet.png").shape[:2] == (3, 10)


@pytest.mark.parametrize(
    ("folder", "out", "options", "says"),
    [
        ("set", "sheet.jpg", [], "end with .png"),
        ("set", "none/sheet.png", [], "there is no folder"),
        ("nothing", "sheet.png", [], "nothing"),
        ("set", "sheet.png", ["--seed", -1], "--seed"),
    ],
)
def test_mistakes(tiny_data, tmp_path, folder, out, options, says):
    _, err = vitlite("data", "corrupt", tiny_data.parent / folder, "--out", tmp_path / out, *options, code=2)
    assert says in err
    assert not list(tmp_path.iterdir())
