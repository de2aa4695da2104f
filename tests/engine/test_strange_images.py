"""Training stores what its images are, and every way to score images says which are clearly others."""

import io
import json
import shutil

import grey_predictor
import numpy as np
import pytest
from commands import vitlite
from PIL import Image

import vitlite as package
from vitlite.engine.calibrate import recalibrate
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate
from vitlite.engine.predict import predict
from vitlite.images.known import ADVICE, CALIBRATED, KEY, RECALIBRATE, TRAINED_KEY, TRAINED_TOO

TRAINED = {"width": [64, 64], "height": [64, 64], "shape": [1.0, 1.0], "colours": ["colour"], "depths": ["8 bits"]}
L2CAE = {"window": 16, "stride": 8, "latent": 5, "steps": 2, "sigma": 1, "batch_size": 4, "folds": 0}


@pytest.fixture
def changed(tiny_data, tmp_path):
    """changed(function, name) is a folder of the good test images after ``function``."""

    def make(function, name="new"):
        (tmp_path / name).mkdir()
        for path in sorted((tiny_data / "weave/test/good").iterdir()):
            function(Image.open(path).convert("RGB")).save(tmp_path / name / path.name)
        return tmp_path / name

    return make


def smaller(image):
    return image.resize((24, 24))


def grey(image):
    return image.convert("L")


def lower(image):
    return image.crop((0, 8, 64, 56))


def said(caplog):
    """The lines about strange images, without what follows from them."""
    found = [line.partition(f": {ADVICE}") for line in caplog.messages if "those of training" in line]
    assert all(advice for _, advice, _ in found)
    caplog.clear()
    return [head for head, _, _ in found]


OTHERS = "those of training are 64 x 64 pixels"
SMALL = f"is 24 x 24 pixels, {OTHERS}"


def test_training_stores_what_its_images_are(tiny_run, tmp_path, caplog):
    assert Detector(tiny_run, "cpu").calibration[KEY] == TRAINED
    assert json.loads((tiny_run / "calibration.json").read_text())[KEY] == TRAINED


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (smaller, "are 24 x 24 pixels (first: {}), those of training are 64 x 64 pixels"),
        (grey, "are grey (first: {}), those of training are in colour"),
        (lower, "are 0.75 times as high as wide (first: {}), those of training are 1 times as high as wide"),
    ],
)
def test_a_folder(tiny_run, changed, caplog, function, says):
    folder, detector = changed(function), Detector(tiny_run, "cpu")
    predict(detector, folder)
    assert said(caplog) == [f"4 of 4 images {says.format(min(folder.iterdir()))}"]


def test_another_depth(tiny_data, tmp_path, put, caplog):
    """After training on 16 bits, 8 bits are named; after training on 8 bits alone the full range of 16 is the same."""
    rng = np.random.default_rng(0)
    good = [rng.integers(90, 110, (32, 32)).astype(np.uint16) for _ in range(8)]
    for i, image in enumerate(good):
        put(tmp_path / f"deep/{i}.png", image * 257)
        put(tmp_path / f"eight/{i}.png", image.astype(np.uint8))
        put(tmp_path / f"floats/{i}.tif", image.astype(np.float32) / 255)
    runs = {
        name: package.train(tmp_path / name, tmp_path / f"run {name}", method="l2cae", image_size=32, **L2CAE)
        for name in ("deep", "eight")
    }
    caplog.clear()
    for name, others in {"deep": ("eight", "floats"), "eight": ("deep", "floats")}.items():
        for other in others:
            predict(runs[name], tmp_path / other)
            line = "8 of 8 images are of {} (first: {}), those of training are of more than 8 bits"
            what = {"eight": "8 bits", "floats": "floats", "deep": ""}[other]
            first = min((tmp_path / other).iterdir())
            assert said(caplog) == ([line.format(what, first)] if name == "deep" else []), (name, other)


def test_images_as_in_training_are_not_named(tiny_run, tiny_data, caplog):
    detector = Detector(tiny_run, "cpu")
    predict(detector, tiny_data / "weave/test")
    evaluate(detector, data=tiny_data)
    detector.predict(np.asarray(Image.open(next((tiny_data / "weave/test/good").iterdir())).convert("RGB")))
    assert said(caplog) == []


def test_python(tiny_run, changed, caplog):
    """Paths, arrays and Pillow images; a call says each kind once."""
    detector, paths = Detector(tiny_run, "cpu"), sorted(changed(smaller).iterdir())
    array = np.asarray(Image.open(paths[0]))
    for images, line in (
        (paths, f"4 of 4 images are 24 x 24 pixels (first: {paths[0]}), {OTHERS}"),
        (paths[0], f"{paths[0]}: {SMALL}"),
        (array, f"image 0: {SMALL}"),
        (np.stack([array] * 3), f"3 of 3 images are 24 x 24 pixels (first: image 0), {OTHERS}"),
        (Image.open(paths[0]), f"image 0: {SMALL}"),
    ):
        detector.predict(images, batch_size=2)
        assert said(caplog) == [line]
    detector.predict(np.full((64, 64), 9, np.uint8))
    assert said(caplog) == ["image 0: is grey, those of training are in colour"]


def test_a_data_set(tiny_run, tiny_data, tmp_path, caplog):
    """A line for all categories together."""
    for category in ("weave", "other"):
        for path in (tiny_data / "weave").rglob("*.png"):
            place = tmp_path / category / path.relative_to(tiny_data / "weave")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).resize((24, 24), Image.Resampling.NEAREST).save(place)
    evaluate(Detector(tiny_run, "cpu"), data=tmp_path, category="all")
    (line,) = said(caplog)
    assert line.startswith(f"20 of 20 images are 24 x 24 pixels (first: {tmp_path}")


def test_images_that_come_one_by_one(tiny_run, changed, monkeypatch):
    """On standard input each kind is said once, also from one batch to the next."""
    paths = [*changed(smaller).iterdir(), *changed(grey, "grey").iterdir()]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(map(str, paths)).encode())))
    err = vitlite("predict", tiny_run, "-", "--device", "cpu")[1]
    assert err.count("those of training are") == err.count("this is said once") == 2
    assert f"{paths[0]}: {SMALL}" in err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(paths[0].read_bytes())))
    err = vitlite("predict", tiny_run, "--stdin-image", "--device", "cpu")[1]
    assert [line for line in err.splitlines() if "those of" in line] == [f"-: {SMALL}: {ADVICE}; this is said once"]


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"image_size": 32}, ["0.75"]),
        ({"image_size": "keep,32"}, ["0.75"]),
        ({"tile": 32}, []),
        ({"image_size": 32, "roi": "auto"}, []),
    ],
)
def test_a_shape_counts_where_it_is_not_kept(tmp_path, tiny_data, changed, caplog, settings, kinds):
    run = package.train(tiny_data, tmp_path / "run", method="l2cae", device="cpu", **{**L2CAE, **settings})
    assert run.calibration[KEY] == TRAINED
    predict(run, changed(lower, "lower"))
    assert [line.split()[5] for line in said(caplog)] == kinds
    predict(run, changed(lambda image: grey(smaller(image)), "small"))
    assert [line.split()[5] for line in said(caplog)] == ["24", "grey"]


def test_a_calibration_knows_its_good_images(tiny_run, tiny_data, changed, tmp_path, caplog):
    """It says that they are others. Its threshold is for such images alone, until training's scores set it again."""
    run, folder = shutil.copytree(tiny_run, tmp_path / "run"), changed(smaller)
    as_in_training = tiny_data / "weave/test/good"
    recalibrate(Detector(run, "cpu", calibrated=False), target_fpr=0.3)
    assert Detector(run, "cpu").calibration[KEY] == TRAINED
    recalibrate(Detector(run, "cpu", calibrated=False), good=[folder], target_fpr=0.3)
    assert [line for line in caplog.messages if f"those of training are 64 x 64 pixels: {CALIBRATED}" in line]
    detector = Detector(run, "cpu")
    small = TRAINED | {"width": [24, 24], "height": [24, 24]}
    assert (detector.calibration[KEY], detector.calibration[TRAINED_KEY]) == (small, TRAINED)
    caplog.clear()
    predict(detector, folder)
    assert said(caplog) == []
    predict(detector, as_in_training)
    others = f"4 of 4 images are 64 x 64 pixels (first: {min(as_in_training.iterdir())})"
    assert f"{others}, those of the calibration are 24 x 24 pixels: {RECALIBRATE}" in caplog.messages
    caplog.clear()
    recalibrate(detector, good=[folder], target_fpr=0.3)
    assert [line for line in caplog.messages if f"those of training are 64 x 64 pixels: {CALIBRATED}" in line]
    recalibrate(detector, target_fpr=0.3)
    assert detector.calibration[KEY] == TRAINED
    assert TRAINED_KEY not in detector.calibration
    caplog.clear()
    predict(detector, folder)
    predict(detector, as_in_training)
    assert len(said(caplog)) == 1


def test_a_calibration_with_some_images_as_in_training_knows_both(tiny_run, tiny_data, changed, tmp_path, caplog):
    run, folder = shutil.copytree(tiny_run, tmp_path / "run"), changed(smaller)
    as_in_training = tiny_data / "weave/test/good"
    recalibrate(Detector(run, "cpu", calibrated=False), good=[folder, as_in_training], target_fpr=0.3)
    detector = Detector(run, "cpu")
    both = TRAINED | {"width": [24, 64], "height": [24, 64]}
    assert (detector.calibration[KEY], detector.calibration[TRAINED_KEY]) == (both, TRAINED)
    caplog.clear()
    predict(detector, folder)
    predict(detector, as_in_training)
    assert said(caplog) == []


def test_an_update_names_new_images_that_are_others(tiny_run, changed, tmp_path):
    new, out = changed(smaller), tmp_path / "out"
    err = vitlite("update", tiny_run, "--good", new, "--out", out, "--device", "cpu")[1]
    first = f"4 of 4 images are 24 x 24 pixels (first: {min(new.iterdir())}), those of training are 64 x 64 pixels: "
    assert err.count("those of training are") == err.count(first + TRAINED_TOO) == 1
    assert Detector(out, "cpu").calibration[KEY] == TRAINED | {"width": [24, 64], "height": [24, 64]}


def test_a_run_of_an_older_version_says_nothing(tmp_path, put, caplog):
    detector = grey_predictor.Grey()
    predict(detector, [put(tmp_path / "a.png", np.zeros((9, 90), np.uint16)), put(tmp_path / "b.png")])
    assert said(caplog) == []
