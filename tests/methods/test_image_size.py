"""Sizes that are no squares: how they are written, what becomes of them, and what they do to maps."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_settings import METHODS

from vitlite.errors import UserError
from vitlite.methods import method_class
from vitlite.methods.config import change
from vitlite.methods.knn import QUICK as KNN
from vitlite.methods.sivt import PAPER, QUICK, SIVT
from vitlite.nn.augment import DEGREES, affine
from vitlite.nn.maps import SmoothUpsample


def test_sizes_are_one_number_or_two():
    assert change(QUICK, {"image_size": "256, 408"}).image_size == (256, 408)
    assert change(QUICK, {"image_size": [64, 64]}).image_size == 64
    assert change(QUICK, {"image_size": "256,512"}).grid == (22, 46)  # about 32 * 32 places, in that shape
    assert change(QUICK, {"image_size": "256,512", "feature_size": "32,64"}).tokens == (16, 32)
    for wrong in ("256,408,3", "256,x", "keep,0", "keep,256,256", (1, 2, 3), 2.5):
        with pytest.raises(UserError, match=r"image_size=.*must be a whole number, two"):
            change(QUICK, {"image_size": wrong})
    with pytest.raises(UserError, match="image_size=keep,99999999: a network sees at most 4096 x 4096 pixels"):
        change(QUICK, {"image_size": "keep,99999999"})
    with pytest.raises(UserError, match="image_size=256,4: must be at least 8"):
        change(QUICK, {"image_size": "256,4"})
    with pytest.raises(UserError, match="patch=2: does not divide feature_size=32,33"):
        change(QUICK, {"image_size": "256,264", "feature_size": "32,33"})


@pytest.mark.parametrize("config", [PAPER, QUICK, KNN])
@pytest.mark.parametrize("ratio", [1.0, 1260 / 500, 600 / 800, 460 / 1130, 20.0])
def test_keep_has_square_places_and_as_many(config, ratio):
    waiting = change(config, {"image_size": "keep"})
    assert waiting.keeps
    kept = waiting.shaped(ratio)
    (height, width), (rows, columns) = kept.image_shape, kept.grid
    assert (height, width) == (8 * rows, 8 * columns)
    assert height / width == pytest.approx(ratio, rel=0.2)
    assert rows * columns == pytest.approx(32 * 32, rel=0.15)
    assert not kept.keeps
    assert ratio != 1 or kept == replace(config, image_size=256)


def test_each_axis_of_a_map_has_its_own_matrix():
    values = torch.rand(2, 6, 10)
    wide, tall = SmoothUpsample((6, 10), (24, 50), 2.0, "even"), SmoothUpsample((10, 6), (50, 24), 2.0, "even")
    torch.testing.assert_close(wide(values), tall(values.mT).mT)
    assert wide(values).shape == (2, 24, 50)


def test_sivt_puts_patches_where_they_were():
    """A transformer that gives back its patches gives back the features."""
    config = change(QUICK, {"weights": "none", "image_size": "48,80", "feature_size": "6,10", "normalize": "none"})
    method = SIVT(config)
    method.transformer.forward = lambda patches, order: patches
    features = torch.rand(2, 208, 6, 10)
    assert torch.equal(method.reconstruct(features, method.split), features)
    assert method.transformer.positions.shape == (15, config.dim)
    assert method.places_shape == (48, 80)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_rows_and_columns(name):
    """What changes in the upper right of a wide image changes the map there."""
    torch.manual_seed(0)
    method_of = method_class(name)
    config = change(method_of.presets["quick"], METHODS[name] | {"image_size": "keep,96"}).shaped(0.4)
    height, width = config.image_shape
    assert height * 2 <= width
    method, images = method_of(config), torch.rand(2, 3, height, width)
    features = method.frozen(images)
    method.fit([features])
    for stage in method.stages():
        method.begin(stage)
        assert method.loss(features)["loss"].isfinite()
    method.eval().prepare([features])
    changed = images.clone()
    changed[:, :, : height // 2, width * 2 // 3 :] = 0
    (before, _), (after, scores) = method.anomaly(images), method.anomaly(changed)
    assert (before.shape, scores.shape) == ((2, height, width), (2,))
    difference = (after - before).abs()
    there = difference[:, : height // 2, width * 2 // 3 :].mean()
    assert there > 1.5 * difference[:, height // 2 :, width * 2 // 3 :].mean()
    assert there > 1.5 * difference[:, :, : width // 2].mean()
    assert all(part.shape[-2:] == (height, width) for part in method.parts(features).values())


@pytest.mark.parametrize("name", METHODS)
def test_a_size_that_no_memory_holds_is_refused(name):
    for preset in method_class(name).presets.values():
        for size in ("32000", "keep,32000", "512,40000", f"{10**9}"):
            with pytest.raises(UserError, match=f"^image_size={size}: a network sees at most 4096 x 4096 pixels"):
                change(preset, {"image_size": size})


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        (
            "sivt",
            {"feature_size": 1000},
            "feature_size=1000: makes 1000000 places, of which a network has at most 65536",
        ),
        ("knn", {"feature_size": "16,8000"}, "feature_size=16,8000: makes 128000 places"),
        ("dinomaly", {"image_size": 4088}, "image_size=4088: makes 85264 places, of which .*; give less"),
        ("dinomaly", {"crop": 32000}, "crop=32000: a network sees at most 4096 x 4096"),
        ("anovit", {"patch": 1, "image_size": 512}, "patch=1: makes 262144 places, .* a smaller image_size than 512"),
        ("memca", {"patch": 1, "image_size": 512}, "patch=1: makes 262144 places"),
        ("isstad", {"patch": 1, "image_size": 512}, "patch=1: makes 262144 places"),
        ("vtadl", {"patch": 1, "image_size": 512}, "patch=1: makes 262144 places"),
    ],
)
def test_a_grid_that_attention_cannot_compare_is_refused(name, changes, says):
    with pytest.raises(UserError, match=f"^{says}"):
        change(method_class(name).presets["quick"], changes)


def test_large_sizes_that_a_machine_may_hold_are_taken():
    assert change(QUICK, {"image_size": 4096, "feature_size": 256, "patch": 4}).image_size == 4096
    assert change(KNN, {"image_size": "512,32768"}).image_shape == (512, 32768)


def test_affine_turns_without_shear(monkeypatch):
    """A spot that is 30 pixels to the right of the middle stays as far from it."""
    drawn = torch.tensor([[1.0], [0.5], [0.5], [0.5]])  # 10 degrees, no shift, no change of scale
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: drawn)
    rows, columns = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(100) - 49.5, indexing="ij")
    spot = torch.exp(-(rows.square() + (columns - 30).square()) / 8)
    turned = affine(spot[None, None])[0, 0]
    y, x = ((turned * axis).sum() / turned.sum() for axis in (rows, columns))
    assert torch.hypot(y, x) == pytest.approx(30, abs=0.2)
    assert abs(float(torch.atan2(y, x))) == pytest.approx(math.radians(DEGREES), abs=0.01)
