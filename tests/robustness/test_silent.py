"""Nothing is silently wrong: sets whose meaning is easy to mistake give the figures of the same set written plainly."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from silent_rows import FOLDERS, IMAGES, MASKS, ROWS, images, store_images, store_masks

from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate
from vitlite.engine.predict import predict
from vitlite.images.known import KEY
from vitlite.results import KEYS

COUNTS = ("good", "defective", "without_mask", "empty_masks")


@pytest.fixture(scope="module")
def detector(tiny_run):
    found = Detector(tiny_run, "cpu")
    found.calibration[KEY]["colours"] = ["grey"]  # as the set below: all that it says is about the set
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tiny_data):
    """The set written plainly: a category with grey images."""
    root = shutil.copytree(tiny_data / "weave", tmp_path_factory.mktemp("plain") / "weave")
    for path in images(root):
        values = np.array(Image.open(path).convert("L"))
        more = ((0, 0), (0, 8 * (path.stem == "001")))  # not all are square
        Image.fromarray(np.pad(values, more, "reflect")).save(path)
        mask = root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        if mask.exists():
            Image.fromarray(np.pad(np.array(Image.open(mask)), more)).save(mask)
    return root


@pytest.fixture(scope="module")
def expected(detector, plain):
    return evaluate(detector, data=plain)["categories"]["weave"]


@pytest.fixture
def root(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "weave")


def check(found, expected, **gives):
    """The figures, and every image's score and verdict, are those of the plain set, or given."""
    own = found["categories"]["weave"]
    wanted = {key: expected[key] for key in (*KEYS, *COUNTS, "mask_rule")} | gives
    if wanted["pixel_auroc"] in (None, ...):
        wanted |= dict.fromkeys(KEYS[3:], wanted["pixel_auroc"])
    for key, value in wanted.items():
        if value is not ...:
            assert own[key] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), key
    for one, other in zip(*(sorted(c["images"], key=lambda i: (i["kind"], i["file"])) for c in (own, expected))):
        assert one["score"] == pytest.approx(other["score"], rel=1e-5)
        assert (one["verdict"], one["label"]) == (other["verdict"], other["label"])


def check_said(caplog, *says):
    lines = [line.split(": ", 1)[1] for line in caplog.messages]
    assert len(lines) == len(says), lines
    for line, pattern in zip(lines, says):
        assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize("name", ROWS)
def test_sets_that_are_not_what_they_seem(name, root, expected, detector, caplog):
    row = ROWS[name]
    row.change(root)
    check(evaluate(detector, data=root), expected, **row.gives)
    check_said(caplog, *row.says)


@pytest.mark.parametrize("name", IMAGES)
def test_the_same_images_in_other_files(name, root, expected, detector, caplog):
    store_images(root, name)
    check(evaluate(detector, data=root), expected)
    check_said(caplog)


@pytest.mark.parametrize("name", MASKS)
def test_the_same_masks_in_other_files(name, root, expected, detector, caplog):
    store_masks(root, name)
    check(evaluate(detector, data=root), expected, mask_rule=MASKS[name][2])
    check_said(caplog)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_same_files_in_other_folders(name, root, expected, detector, caplog):
    change, says = FOLDERS[name]
    change(root)
    check(evaluate(detector, data=root), expected)
    check_said(caplog, *says)


@pytest.mark.parametrize("seed", range(4))
def test_all_of_it_at_once(seed, root, tmp_path, expected, detector, caplog):
    """Images, masks, folders and batch sizes drawn at random."""
    draw = np.random.default_rng(seed).choice
    image, mask, folder, batch = draw([*IMAGES]), draw([*MASKS]), draw([*FOLDERS]), int(draw([1, 3, 5, 16]))
    store_images(root, image)
    store_masks(root, mask)
    change, says = FOLDERS[folder]
    change(root)
    check(evaluate(detector, data=root, streaming=bool(seed % 2)), expected, mask_rule=MASKS[mask][2])
    check_said(caplog, *says)
    verdicts = {(i["kind"], i["file"][-7:-4]): i["verdict"] for i in expected["images"]}
    paths = sorted((root / "test").rglob("[0-9][0-9][0-9].*"))
    rows = predict(detector, paths, tmp_path / "out", overlays=False, batch_size=batch)
    assert len(rows) == len(verdicts)
    for path, row in zip(paths, rows):
        kind = path.parent.name.lower().replace("ok", "good")
        assert row["verdict"] == verdicts[kind, path.stem], path
