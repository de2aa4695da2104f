"""The synthetic data set: exact masks, the same bytes for the same seed, not solved by a trivial detector."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from vitlite import data
from vitlite.data.defects import DEFECTS
from vitlite.data.synthetic import DEFAULT_CATEGORIES, LEVEL, render_defect, render_good
from vitlite.data.textures import TEXTURES
from vitlite.errors import UserError

SMALL = {"size": 48, "train": 3, "good": 2, "defects": 2}


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_and_counts(tmp_path):
    root = data.synthesize(tmp_path / "new" / "set", categories="metal, weave", **SMALL)
    assert root == tmp_path / "new" / "set"
    dataset = data.open_dataset(root, "all", need_test=True)
    assert dataset.categories == ("metal", "weave")
    assert dataset.notes == ()
    assert len(dataset.train) == 2 * 3
    assert sum(not s.label for s in dataset.test) == 2 * 2
    assert sum(s.label for s in dataset.test) == 2 * 2 * len(DEFECTS)
    assert all(data.read_image(s.path).shape == (48, 48, 3) for s in (*dataset.train, *dataset.test))
    assert all(data.read_mask(s.mask).any() for s in dataset.test if s.label)
    assert data.check(root).clean
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]  # nothing temporary is left


def test_same_seed_same_bytes_in_another_process(tmp_path):
    first = data.synthesize(tmp_path / "a", seed=5, categories=["gear", "granite"], **SMALL)
    call = f"vitlite.data.synthesize({str(tmp_path / 'b')!r}, seed=5, categories=['granite', 'gear'], **{SMALL})"
    subprocess.run([sys.executable, "-c", f"import vitlite.data; {call}"], check=True, env={"PYTHONHASHSEED": "7"})
    assert digests(first) == digests(tmp_path / "b")
    other = digests(data.synthesize(tmp_path / "c", seed=6, categories=["gear", "granite"], **SMALL))
    assert not set(other.values()) & set(digests(first).values())


def test_the_default_set_stays_as_it_is():
    """Sums of all levels, at most ten off: another processor may round a handful of pixels differently."""
    sums = {
        "weave": (1408657, 1551929, 1431279, 1425020),
        "wood": (1563776, 1545757, 1635219, 1427528),
        "gear": (1005773, 1000702, 1004263, 984982),
    }
    for category, expected in sums.items():
        damaged = [render_defect(category, kind, 0, seed=0, size=64)[0] for kind in ("scratch", "spot", "missing")]
        images = [render_good(category, "train", 0, seed=0, size=64), *damaged]
        assert [int(image.sum()) for image in images] == pytest.approx(expected, abs=10)
    assert (tuple(sums), tuple(DEFECTS)) == (DEFAULT_CATEGORIES, ("scratch", "spot", "missing"))


def test_kinds_can_be_chosen(tmp_path):
    root = data.synthesize(tmp_path / "some", categories="wood", kinds=["soft", "scratch"], **SMALL)
    assert [sample.defect for sample in data.open_dataset(root).test if sample.label] == ["scratch"] * 2 + ["soft"] * 2
    every = data.synthesize(tmp_path / "all", categories="wood", kinds="all", **SMALL)
    assert {path.name for path in (every / "wood" / "test").iterdir()} == {"good", *DEFECTS, *data.DRAWN}
    assert digests(root).items() <= digests(every).items()


def test_asking_for_more_keeps_what_was_there(tmp_path):
    few = digests(data.synthesize(tmp_path / "a", categories="tiles", size=32, train=1, good=1, defects=1))
    many = digests(data.synthesize(tmp_path / "b", categories="tiles,wood", size=32, train=2, good=2, defects=2))
    assert few.items() <= many.items()


@pytest.mark.parametrize("category", TEXTURES)
@pytest.mark.parametrize("kind", DEFECTS)
def test_masks_are_exactly_what_changed(category, kind):
    for index in range(3):
        image, clean, mask = render_defect(category, kind, index, seed=3, size=128)
        change = np.abs(image.astype(int) - clean).max(axis=2)
        assert ((change > 0) == mask).all()
        assert change[mask].min() > LEVEL
        assert 3e-4 < mask.mean() < 0.05
        # Whole regions and not a spray of pixels, which would make every region metric meaningless.
        _, regions = ndimage.label(mask, np.ones((3, 3)))
        assert regions <= 6
        filled = ndimage.binary_closing(np.pad(mask, 2), iterations=1)[2:-2, 2:-2]
        assert mask.sum() > 0.8 * filled.sum()


@pytest.mark.parametrize("category", TEXTURES)
def test_good_images_differ_from_each_other_a_little(category):
    images = np.stack([render_good(category, "train", i, seed=0, size=96) for i in range(6)]).astype(float)
    means = images.mean(axis=(1, 2, 3))
    assert 0.5 < means.std() < 25
    assert 40 < means.mean() < 200
    pairs = [np.abs(a - b).mean() for i, a in enumerate(images) for b in images[:i]]
    assert min(pairs) > 2
    assert (images == 255).mean() < 0.05
    assert (images == 0).mean() < 0.05


def auroc(labels, scores):
    labels, scores = np.asarray(labels, bool), np.asarray(scores)
    pairs = scores[labels][:, None] - scores[~labels][None, :]
    return ((pairs > 0) + 0.5 * (pairs == 0)).mean()


@pytest.mark.parametrize("statistic", [np.mean, np.std])
def test_brightness_and_contrast_do_not_give_the_defects_away(statistic):
    for category in TEXTURES:
        good = [statistic(render_good(category, "test", i, seed=1, size=96)) for i in range(30)]
        bad = [statistic(render_defect(category, k, i, seed=1, size=96)[0]) for k in DEFECTS for i in range(10)]
        assert 0.15 < auroc([0] * len(good) + [1] * len(bad), good + bad) < 0.85, category


@pytest.mark.parametrize("size", [32, 33, 200])
def test_other_sizes(size):
    for category in TEXTURES:
        assert render_good(category, "train", 0, seed=0, size=size).shape == (size, size, 3)
        for kind in DEFECTS:
            image, _, mask = render_defect(category, kind, 0, seed=0, size=size)
            assert image.shape == (*mask.shape, 3) == (size, size, 3)
            assert mask.any()


def test_never_writes_over_anything(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in (("full", "not empty"), ("file", "no folder")):
        with pytest.raises(UserError, match=message):
            data.synthesize(tmp_path / name, **SMALL)
    with pytest.raises(UserError, match="file is a file, not a folder"):
        data.synthesize(tmp_path / "file" / "below", **SMALL)
    assert (tmp_path / "full" / "mine.txt").read_text() == "x"
    data.synthesize(tmp_path / "empty", categories="wood", **SMALL)
    assert data.open_dataset(tmp_path / "empty").categories == ("wood",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vitlite.data.synthetic.render_defect", stop)  # after the good images are written
    with pytest.raises(KeyboardInterrupt):
        data.synthesize(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"categories": "weave,silk"}, "'silk': choose from weave"),
        ({"categories": []}, "choose from"),
        ({"kinds": "soft,dent"}, "kinds='dent': choose from scratch, spot, missing, tiny"),
        ({"size": 31}, "size=31"),
        ({"size": 5000}, "size=5000"),
        ({"size": 64.0}, "whole number"),
        ({"seed": -1}, "seed=-1"),
        ({"train": -1}, "train=-1"),
        ({"train": 0, "good": 0, "defects": 0}, "nothing to write"),
    ],
)
def test_wrong_numbers_and_names(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        data.synthesize(tmp_path / "set", **wrong)
    assert list(tmp_path.iterdir()) == []
