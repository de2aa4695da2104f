"""Defects drawn onto any image: exact masks, sizes in order, on the part, visible and never one-sided."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from vitlite.data import DRAWN, draw_defect, draw_set, estimate_part, open_dataset, read_image, read_mask
from vitlite.data.drawn import FAINT
from vitlite.data.synthetic import render_defect, render_good
from vitlite.errors import UserError


def noisy(height, width, spread=20, level=128):
    values = np.random.default_rng(0).normal(level, spread, (height, width, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def flat(height, width, *colour):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))


def disc(size=160):
    """A dark disc before a bright background whose light falls off, and where the disc is."""
    axis = np.arange(size) - size / 2
    inside = np.hypot(axis[:, None], axis[None, :]) < 0.3 * size
    background = 200 + 15 * axis[None, :, None] / size + np.random.default_rng(0).normal(0, 3, (size, size, 3))
    return np.where(inside[..., None], noisy(size, size, 8, 70), background).astype(np.uint8), inside


IMAGES = {
    "black": flat(64, 64, 0, 0, 0),
    "white": flat(64, 64, 255, 255, 255),
    "red": flat(40, 60, 255, 0, 0),
    "smallest": flat(8, 8, 120, 130, 140),
    "narrow": noisy(8, 300),
    "noise": np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8),
    "large": noisy(300, 400),
}


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("name", IMAGES)
def test_masks_are_the_pixels_that_differ(name, kind):
    image = IMAGES[name]
    for seed in range(12):
        damaged, mask = draw_defect(image, kind, np.random.default_rng(seed))
        change = np.abs(damaged.astype(int) - image).max(axis=2)
        assert damaged.dtype == np.uint8
        assert mask.any()
        assert ((change > 0) == mask).all()
        assert change[mask].min() >= FAINT
        assert change.max() >= 6
        again = draw_defect(image, kind, np.random.default_rng(seed))
        assert (damaged == again[0]).all()
    assert hashlib.sha256(image.tobytes()).digest() == hashlib.sha256(IMAGES[name].tobytes()).digest()


def test_kinds_are_in_order_of_size_and_as_large_as_documented():
    image = noisy(256, 256)
    limits = {
        "tiny": (1e-4, 6e-4),
        "low-contrast": (0.003, 0.015),
        "erased": (0.005, 0.05),
        "soft": (0.01, 0.08),
        "large": (0.15, 0.28),
    }
    middle = []
    for kind, (low, high) in limits.items():
        masks = [draw_defect(image, kind, np.random.default_rng(seed))[1] for seed in range(20)]
        shares = [mask.mean() for mask in masks]
        assert low <= min(shares) <= max(shares) <= high, kind
        assert all(ndimage.label(mask, np.ones((3, 3)))[1] <= 10 for mask in masks)
        middle.append(np.median(shares))
    assert tuple(limits) == DRAWN
    assert middle == sorted(middle)


@pytest.mark.parametrize("kind", DRAWN)
def test_brighter_as_often_as_darker_and_warmer_as_often_as_colder(kind):
    image = noisy(48, 48)
    brighter, warmer = [], []
    for seed in range(200):
        damaged, mask = draw_defect(image, kind, np.random.default_rng(seed))
        change = (damaged.astype(int) - image)[mask].mean(axis=0)
        brighter.append(change.mean() > 0)
        warmer.append(change[0] > change[2])
    assert 0.42 < np.mean(brighter) < 0.58
    assert 0.42 < np.mean(warmer) < 0.58


def test_grey_images_stay_grey():
    image = np.repeat(noisy(64, 64)[..., :1], 3, axis=2)
    for kind in DRAWN:
        damaged, _ = draw_defect(image, kind, np.random.default_rng(0))
        assert (damaged == damaged[..., :1]).all()


def test_stronger_on_a_rough_surface_than_on_a_smooth_one():
    def strength(image):
        drawn = [draw_defect(image, "large", np.random.default_rng(seed)) for seed in range(10)]
        return np.mean([abs((damaged.astype(int) - image)[mask].mean()) for damaged, mask in drawn])

    assert strength(noisy(96, 96, 30)) > 1.5 * strength(noisy(96, 96, 2))


def test_defects_lie_on_the_part():
    image, inside = disc()
    part = estimate_part(image)
    assert (part == inside).mean() > 0.97
    for kind in DRAWN:
        for seed in range(10):
            _, mask = draw_defect(image, kind, np.random.default_rng(seed))
            assert not (mask & ~part).any()
            assert kind != "large" or 0.12 < mask.sum() / part.sum() < 0.28


def test_the_part_can_be_given():
    image, part = noisy(120, 90), np.zeros((120, 90), bool)
    part[50:53] = True  # thin: a region follows it
    for kind in DRAWN:
        _, mask = draw_defect(image, kind, np.random.default_rng(0), part=part)
        assert mask.any()
        assert not (mask & ~part).any()
    nothing = np.zeros((120, 90), bool)
    assert draw_defect(image, "large", np.random.default_rng(0), part=nothing)[1].mean() > 0.15


def test_a_surface_that_fills_the_image_is_the_part():
    for category in ("weave", "wood", "metal", "granite"):
        assert estimate_part(render_good(category, "train", 0, seed=0, size=96)).all()
    assert 0.4 < estimate_part(render_good("gear", "train", 0, seed=0, size=96)).mean() < 0.5


@pytest.mark.parametrize("kind", DRAWN)
def test_synthetic_defects_differ_from_the_good_image_by_the_mask(kind):
    for category in ("weave", "gear"):
        image, clean, mask = render_defect(category, kind, 0, seed=3, size=96)
        assert mask.any()
        assert ((image != clean).any(axis=2) == mask).all()


@pytest.mark.parametrize(
    ("image", "kind", "part", "message"),
    [
        (noisy(16, 16), "dent", None, "kind=dent: choose from tiny"),
        (noisy(7, 16), "tiny", None, "image: must be uint8"),
        (noisy(16, 16)[..., 0], "tiny", None, "image: must be uint8"),
        (noisy(16, 16).astype(float), "tiny", None, "image: must be uint8"),
        (noisy(16, 16), "tiny", np.ones((16, 15), bool), "part: must be bool"),
        (noisy(16, 16), "tiny", np.ones((16, 16)), "part: must be bool"),
    ],
)
def test_wrong_arguments(image, kind, part, message):
    with pytest.raises(UserError, match=message):
        draw_defect(image, kind, np.random.default_rng(0), part=part)


def test_a_set_drawn_onto_good_images(put, tmp_path):
    for i in range(7):
        put(tmp_path / "parts" / f"{i}.png", noisy(40, 50, level=100 + 10 * i))
    (tmp_path / "parts" / "broken.png").write_bytes(b"no image")
    root = draw_set(tmp_path / "parts", tmp_path / "set", kinds="large,tiny", good=3, defects=2, seed=4)
    dataset = open_dataset(root, need_train=False, need_test=True)
    assert [s.defect for s in dataset.test] == ["good"] * 3 + ["large"] * 2 + ["tiny"] * 2
    sources = [noisy(40, 50, level=100 + 10 * i) for i in range(7)]
    used = []
    for sample in dataset.test:
        image = read_image(sample.path)
        mask = read_mask(sample.mask) if sample.mask else np.zeros((40, 50))
        (source,) = [i for i, whole in enumerate(sources) if (whole != image).any(axis=2).mean() < 0.5]
        assert ((sources[source] != image).any(axis=2) == mask).all()
        used.append(source)
    assert sorted(used) == list(range(7))  # each once while there are enough
    again = draw_set(tmp_path / "parts", tmp_path / "again", kinds="large,tiny", good=3, defects=2, seed=4)
    for path in root.rglob("*.png"):
        assert path.read_bytes() == (again / path.relative_to(root)).read_bytes()


def test_a_set_of_several_categories(put, tmp_path):
    for name in ("a", "b"):
        put(tmp_path / "set" / name / "train" / "good" / "0.png", noisy(40, 50))
    with pytest.raises(UserError, match="holds 2 categories"):
        draw_set(tmp_path / "set", tmp_path / "drawn")
    root = draw_set(tmp_path / "set", tmp_path / "drawn", category="all", good=1, defects=1)
    test = open_dataset(root, "all", need_train=False, need_test=True).test
    assert [sum(sample.category == name for sample in test) for name in ("a", "b")] == [1 + len(DRAWN)] * 2


def test_a_set_needs_good_images_and_known_kinds(put, tmp_path):
    put(tmp_path / "parts" / "0.png", noisy(40, 50))
    with pytest.raises(UserError, match="choose from tiny, low-contrast, erased, soft, large"):
        draw_set(tmp_path / "parts", tmp_path / "set", kinds="scratch")
    with pytest.raises(UserError, match="good, defects are 0"):
        draw_set(tmp_path / "parts", tmp_path / "set", good=0, defects=0)
    (tmp_path / "parts" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="no image there can be read"):
        draw_set(tmp_path / "parts", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_folder_that_holds_files_is_refused_before_images_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("vitlite.data.synthetic.open_dataset", lambda *_: pytest.fail("looks for images"))
    (tmp_path / "file").touch()
    for out, says in ((tmp_path, "is not empty"), (tmp_path / "file/out", "is a file, not a folder")):
        with pytest.raises(UserError, match=says):
            draw_set(tmp_path, out)
