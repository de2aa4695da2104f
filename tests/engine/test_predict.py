"""Images without a verdict: the score or map is not finite, whatever made it, or the image does not fit into memory."""

import shutil

import numpy as np
import pytest
from commands import rows_of, vitlite
from PIL import Image

from vitlite import answers
from vitlite.engine.predict import predict
from vitlite.errors import UserError
from vitlite.images import loading, tiles
from vitlite.limits import limits_of
from vitlite.predictor import Predictor
from vitlite.verdict import all_small, judge

CALIBRATION = {
    "image_threshold": 0.5,
    "pixel_threshold": 0.5,
    "good_scores": [0.1, 0.2],
    "display": {"low": 0.0, "high": 1.0},
}
NAN, INF = float("nan"), float("inf")


class Scripted(Predictor):
    """Gives the red value of an image's first pixel as the place in a list of (score, value in the map)."""

    calibration, image_size = CALIBRATION, 8

    def __init__(self, answers):
        self.answers = answers

    def score_pixels(self, pixels):
        chosen = [self.answers[image[0, 0, 0]] for image in pixels]
        maps = np.zeros(pixels.shape[:3], np.float32)
        for own, (_, value) in zip(maps, chosen):
            own[3, 3] = value
        return maps, np.array([score for score, _ in chosen], np.float32)

    def digest(self):
        return str(self.answers)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("wrong", [(NAN, 0.0), (INF, 0.0), (-INF, 0.0), (0.1, NAN), (0.1, INF)])
def test_no_verdict(images, tmp_path, wrong):
    detector = Scripted([(0.1, 0.0), wrong, (0.9, 0.9)])
    rows = predict(detector, images, tmp_path / "out")
    assert [row.get("verdict") for row in rows] == ["good", None, "defect"]
    assert str(images / "1.png") in rows[1]["error"]
    written = rows_of(tmp_path / "out/predictions.csv")
    assert [row["verdict"] for row in written] == ["good", "", "defect"]
    assert [bool(row["error"]) for row in written] == [False, True, False]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["0.png", "2.png"]
    for batch_size in (1, 8):
        with pytest.raises(UserError, match=r"1\.png: its (score|map) holds"):
            detector.predict(sorted(images.iterdir()), batch_size=batch_size)
    with pytest.raises(UserError, match="image 0: its"):
        detector.predict(np.ones((8, 8, 3), np.uint8))


@pytest.mark.parametrize(("scores", "code"), [((0.1, NAN, 0.9), 3), ((NAN, NAN, INF), 3), ((0.1, 0.1, 0.9), 1)])
def test_exit_code(images, tmp_path, monkeypatch, scores, code):
    monkeypatch.setattr("vitlite.api.load", lambda run, device, **_: Scripted([(score, 0.0) for score in scores]))
    _, err = vitlite("predict", "run", images, "--out", tmp_path / "out", "--fail-on-defect", code=code)
    assert err.count("no verdict: ") == sum(not np.isfinite(score) for score in scores)
    if code == 3:
        vitlite("predict", "run", images, "--out", tmp_path / "out", "--overwrite", "--quiet", code=3)


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (loading, "read_noted"),
        (tiles, "resize_image"),
        (loading, "map_at"),
        (answers, "judge"),
        (answers, "save_overlay"),
        (answers, "write_map"),
    ],
)
def test_one_image_does_not_fit_into_memory(images, tmp_path, monkeypatch, module, step):
    """Whatever is done to the image of another size fails; the others have their verdicts."""
    Image.fromarray(np.full((9, 11, 3), 1, np.uint8)).save(images / "1.png")
    plain = getattr(module, step)

    def short(*args, **options):
        seen = [getattr(arg, "shape", arg) for arg in args]
        if any(large in seen for large in ((9, 11), (9, 11, 3), 11, images / "1.png")):
            raise MemoryError
        return plain(*args, **options)

    monkeypatch.setattr(module, step, short)
    monkeypatch.setattr("vitlite.api.load", lambda run, device, **_: Scripted([(0.1, 0.0), (0.9, 0.9), (0.9, 0.9)]))
    said = vitlite("predict", "run", images, "--out", tmp_path / "out", "--maps", "--fail-on-defect", code=3)
    rows = rows_of(tmp_path / "out/predictions.csv")
    assert [row["verdict"] for row in rows] == ["good", "", "defect"]
    assert [row["error"] for row in rows] == ["", f"{images / '1.png'}: does not fit into memory", ""]
    assert not any(value for key, value in rows[1].items() if key not in ("file", "error"))
    assert rows[1]["error"] in said[1]
    assert "1 of 2 images defective, 1 not read" in said[0]


# Verdict and boxes agree.


def judged(values, score, **changes):
    return judge(np.asarray(values, np.float32), score, limits_of(CALIBRATION, **changes))


def test_a_good_image_has_no_box_though_pixels_pass():
    values = np.zeros((6, 5))
    values[2, 2] = 0.9
    found = judged(values, 0.4)
    assert (found.verdict, found.regions, found.defect_pixels) == ("good", (), 0)
    assert not found.mask.any()


def test_boxes_are_the_connected_parts_above_the_threshold():
    values = np.zeros((6, 9))
    values[1, 1] = values[2, 2] = 0.9  # touch at a corner
    values[4, 6:8] = 0.6
    found = judged(values, 0.6)
    assert found.regions == ((1, 1, 3, 3), (6, 4, 8, 5))
    assert found.defect_pixels == found.mask.sum() == 4


def test_a_defective_image_without_such_pixels_has_a_box_around_the_peak():
    values = np.full((8, 8), 0.1)
    values[5, 2:5], values[5, 3], values[0, 7] = 0.3, 0.4, 0.29
    found = judged(values, 0.6)
    assert (found.verdict, found.regions, found.defect_pixels) == ("defect", ((2, 5, 5, 6),), 3)


@pytest.mark.parametrize("value", [0.2, 0.0, -3.0])
def test_a_flat_map_of_a_defective_image_is_one_box(value):
    assert judged(np.full((4, 3), value), 0.6).regions == ((0, 0, 3, 4),)


# Regions that are too small.


@pytest.mark.parametrize(
    ("min_area", "boxes", "pixels"),
    [
        (0, ((1, 1, 3, 3), (6, 4, 9, 5)), 5),
        (2, ((1, 1, 3, 3), (6, 4, 9, 5)), 5),
        (3, ((6, 4, 9, 5),), 3),
        (4, (), 0),
    ],
)
def test_regions_below_the_smallest_area_are_no_defect(min_area, boxes, pixels):
    values = np.zeros((6, 9))
    values[1, 1] = values[2, 2] = 0.9  # one region: they touch at a corner
    values[4, 6:9] = 0.6
    found = judged(values, 0.6, min_area=min_area)
    assert (found.regions, found.defect_pixels, found.is_defect) == (boxes, pixels, bool(boxes))
    assert found.mask.sum() == pixels
    assert all_small(values, 6, 9, limits_of(CALIBRATION, min_area=min_area)) is not found.is_defect


@pytest.mark.parametrize(("min_area", "verdict"), [(3, "defect"), (4, "good")])
def test_the_smallest_area_holds_for_the_region_around_the_peak(min_area, verdict):
    values = np.full((8, 8), 0.1)
    values[5, 2:5], values[5, 3], values[0, 7] = 0.3, 0.4, 0.29
    assert judged(values, 0.6, min_area=min_area).verdict == verdict


def test_pixels_are_those_of_the_image_not_of_the_map(images):
    """One pixel of the map is four across in an image of four times its side."""
    Image.fromarray(np.full((32, 32, 3), 0, np.uint8)).save(images / "large.png")
    detector = Scripted([(0.9, 2.0)])
    area = detector.predict(images / "large.png").defect_pixels
    assert area > 4
    assert detector.predict(images / "0.png").defect_pixels == 1
    verdicts = [detector.predict(images / "large.png", min_area=least).verdict for least in (area, area + 1)]
    assert verdicts == ["defect", "good"]
    detector.calibration = CALIBRATION | {"min_area": 2}
    found = detector.predict([images / "large.png", images / "0.png"])
    assert [one.verdict for one in found] == ["defect", "good"]
    assert detector.predict(images / "0.png", min_area=0).verdict == "defect"


@pytest.mark.parametrize("first", [b"", None])
def test_of_many_images_without_a_verdict_a_few_are_named(images, tmp_path, caplog, first):
    """Nothing is said of unreadable ones alone: the caller does."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.png").write_bytes(first if first is not None else (images / "1.png").read_bytes())
    kind = "not read:" if first is not None else "no verdict:"
    predict(Scripted([(0.1, 0.0), (NAN, 0.0)]), [folder, images / "0.png"])
    said = [line for line in caplog.messages if line.startswith(kind)]
    assert len(said) == 4
    assert said[-1] == f"{kind} 3 more, for the same reason as {folder / '0.png'}"
    if first is not None:
        caplog.clear()
        predict(Scripted([]), folder)
        assert not any(line.startswith(kind) for line in caplog.messages)


def test_masks_and_coordinates_are_left_out(images, tmp_path, caplog):
    part = tmp_path / "part"
    for name in ("rgb", "xyz", "gt"):
        shutil.copytree(images, part / name)
    rows = predict(Scripted([(0.1, 0.0)] * 3), part)
    assert [row["file"] for row in rows] == [str(part / "rgb" / f"{i}.png") for i in range(3)]
    assert [message for message in caplog.messages if "left out" in message] == [
        f"6 images are left out, because they are no photographs: {part}/gt/ (3, masks), {part}/xyz/ (3, "
        "coordinates or depths); to score them, give that folder or file itself"
    ]
