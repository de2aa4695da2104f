"""The Python interface: the numbers of the commands, every kind of input, threads."""

import io
import json
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from commands import rows_of
from PIL import Image
from tiny_settings import TINY, WITH_BACKBONE

import vitlite
from vitlite.data import read_image
from vitlite.engine.predict import predict
from vitlite.errors import UserError


@pytest.fixture(scope="module")
def detector(tiny_run):
    return vitlite.load(tiny_run, "cpu")


@pytest.fixture(scope="module")
def images(tiny_data):
    return sorted((tiny_data / "weave/test").rglob("*.png"))


def same(one, other):
    assert one.score == other.score
    assert (one.is_defect, one.percentile, one.regions, one.defect_pixels) == (
        other.is_defect,
        other.percentile,
        other.regions,
        other.defect_pixels,
    )
    np.testing.assert_array_equal(one.map, other.map)


def test_train_evaluate_predict(tiny_data, tmp_path):
    out = tmp_path / "run"
    trained = vitlite.train(tiny_data, out, category=["weave"], device="cpu", seed=3, **TINY)
    results = vitlite.evaluate(trained)
    assert results["mean"] == vitlite.evaluate(str(out), data=tiny_data, category="weave")["mean"]
    assert results["about"]["seed"] == 3
    assert not (out / "results.json").exists()
    image = tiny_data / "weave/test/good/000.png"
    same(trained.predict(image), vitlite.load(out, "cpu").predict(str(image)))
    with pytest.raises(UserError, match="already holds a run"):
        vitlite.train(tiny_data, out, device="cpu", **TINY)


def test_the_same_run_as_the_command_writes(tiny_data, tiny_run, tmp_path):
    vitlite.train(str(tiny_data), tmp_path / "run", device="cpu", **TINY)
    assert (tmp_path / "run/config.toml").read_text() == (tiny_run / "config.toml").read_text()
    assert (tmp_path / "run/calibration.json").read_text() == (tiny_run / "calibration.json").read_text()


def test_an_interrupted_run_goes_on(tiny_data, tiny_run, tmp_path):
    """With the settings that it began with, for as long as it had, or longer; its data may have moved."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "calibration.json").unlink()
    trained = vitlite.train(None, run, device="cpu", resume=True)
    assert trained.calibration == vitlite.load(tiny_run, "cpu").calibration
    moved = shutil.copytree(tiny_data, tmp_path / "moved")
    trained = vitlite.train(moved, run, device="cpu", resume=True, epochs=3)
    assert (trained.settings.config.epochs, trained.settings.data) == (3, str(moved))
    assert vitlite.train(None, run, device="cpu", resume=True, epochs=3).digest() == trained.digest()
    for options in ({"preset": "paper"}, {"method": "sivt"}, {"seed": 1}, {"init_from": run}):
        with pytest.raises(UserError, match=r"^resume=True: .*config\.toml"):
            vitlite.train(None, run, resume=True, **options)
    with pytest.raises(UserError, match=r"^lr: not together with resume=True"):
        vitlite.train(None, run, resume=True, lr=1e-3)


def test_a_run_begins_with_the_weights_of_another(tiny_run, tiny_data, tmp_path):
    good = tiny_data / "weave/train/good"
    trained = vitlite.train(good, tmp_path / "run", init_from=tiny_run, device="cpu", epochs=1)
    settings = trained.settings
    assert (settings.init_from, settings.method, settings.config.dim) == (str(tiny_run), "sivt", TINY["dim"])
    with pytest.raises(UserError, match="init_from=3: must be the folder of a run"):
        vitlite.train(good, tmp_path / "other", init_from=3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "nonsense"}, "nonsense"),
        ({"preset": "slow"}, "slow"),
        ({"depth": 3}, "depth"),
        ({"epochs": "many"}, "epochs=many"),
        ({"seed": -1}, "seed=-1"),
        ({"device": "tpu9"}, "tpu9"),
        ({"category": "nut"}, "nut"),
        ({"method": ["sivt"]}, r"method=\['sivt'\]: must be the name of a method"),
        ({"preset": ["quick"]}, r"preset=\['quick'\]: must be the name of a preset"),
        ({"category": 3}, "category=3: must be the name of a category"),
        ({"category": ["weave", 3]}, r"category=\['weave', 3\]: must be the name"),
    ],
)
def test_wrong_settings(tiny_data, tmp_path, options, says):
    with pytest.raises(UserError, match=says):
        vitlite.train(tiny_data, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_train_on_or_into_what_is_no_path(tiny_data, tmp_path):
    with pytest.raises(UserError, match="data=3: must be the folder of a data set"):
        vitlite.train(3, tmp_path / "run")
    for out in (None, 3):
        with pytest.raises(UserError, match=f"out={out}: must be the folder for the run"):
            vitlite.train(tiny_data, out)


def test_evaluate_what_is_no_run_or_data(detector):
    for run in (None, 3, ["run"]):
        with pytest.raises(UserError, match="give the folder of a run"):
            vitlite.evaluate(run)
    with pytest.raises(UserError, match="data=3: must be the folder of a data set"):
        vitlite.evaluate(detector, data=3)


@pytest.mark.parametrize("size", [0, -1, 2.0, "2", None])
def test_batch_sizes_below_one_or_of_another_type(detector, images, size):
    for given in (images[0], images[:2], []):
        with pytest.raises(UserError, match=f"batch_size={size!r}: must be a whole number"):
            detector.predict(given, batch_size=size)
    with pytest.raises(UserError, match="batch_size"):
        next(detector.score_files(images, batch_size=size))
    assert len(detector.predict(images[:2], batch_size=np.int64(1))) == 2


def test_settings_of_every_type(tiny_data, tmp_path):
    settings = {**WITH_BACKBONE, "strides": (8, 16), "epochs": 1, "clip_norm": 0.5}
    trained = vitlite.train(tiny_data, tmp_path / "run", device="cpu", **settings)
    assert trained.settings.config.strides == (8, 16)
    assert trained.settings.config.clip_norm == 0.5


def test_predictions_are_those_of_the_command(detector, images, tmp_path):
    predict(detector, images, tmp_path / "out", maps=True, overlays=False)
    for row, prediction in zip(rows_of(tmp_path / "out/predictions.csv"), detector.predict(images), strict=True):
        assert float(row["score"]) == pytest.approx(prediction.score, rel=1e-5)
        assert row["verdict"] == prediction.verdict
        assert int(row["defect_pixels"]) == prediction.defect_pixels
        boxes = tuple(tuple(map(int, box.split())) for box in row["regions"].split(";") if box)
        assert boxes == prediction.regions
        with Image.open(tmp_path / "out" / row["map"]) as image:
            np.testing.assert_array_equal(np.asarray(image), prediction.map)


def test_every_kind_of_input(detector, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (37, 81, 3), np.uint8)
    path = tmp_path / "p.png"
    Image.fromarray(pixels).save(path)
    expected = detector.predict(path)
    assert expected.map.shape == (37, 81)
    assert expected.map.dtype == np.float32
    assert isinstance(expected, vitlite.Prediction)
    for given in (str(path), pixels, Image.open(path), Image.fromarray(pixels), pixels[::-1][::-1]):
        same(detector.predict(given), expected)
    grey = pixels[:, :, 0]
    same(detector.predict(grey), detector.predict(np.repeat(grey[:, :, None], 3, axis=2)))
    same(detector.predict(grey), detector.predict(Image.fromarray(grey)))
    assert detector.predict([]) == []
    (one,) = detector.predict((pixels,))
    same(one, expected)
    batch = detector.predict(np.stack([pixels, pixels]))
    assert len(batch) == 2
    assert batch[1].score == pytest.approx(expected.score, rel=1e-4)
    mixed = detector.predict([path, grey, pixels], batch_size=2)
    assert [p.map.shape for p in mixed] == [(37, 81)] * 3


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_pil_images_are_read_as_their_files_are(detector, tmp_path, mode):
    grey = np.random.default_rng(1).integers(0, 255, (30, 40), np.uint8)
    wide = {"I;16": grey.astype(np.uint16) * 257, "F": grey.astype(np.float32) / 255}
    image = Image.fromarray(wide[mode]) if mode in wide else Image.fromarray(grey).convert("RGB").convert(mode)
    assert image.mode == mode
    path = tmp_path / "p.tiff"
    image.save(path)
    same(detector.predict(image), detector.predict(read_image(path)))


def test_the_orientation_of_a_pil_image_is_applied(detector, tmp_path):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (30, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, format="JPEG", exif=exif)
    (tmp_path / "p.jpg").write_bytes(file.getvalue())
    turned = detector.predict(Image.open(tmp_path / "p.jpg"))
    assert turned.map.shape == (40, 30)
    same(turned, detector.predict(tmp_path / "p.jpg"))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((8, 8, 3), np.float32), "image 0: is float32"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((8, 8, 1), np.uint8), r"\(8, 8, 1\)"),
        (np.zeros((0, 8), np.uint8), r"\(0, 8\)"),
        (np.zeros(8, np.uint8), r"\(8,\)"),
        (3, "image 0: has the type int"),
        (None, "NoneType"),
        ("/no/such.png", "/no/such.png"),
        (Path("/"), "folder"),
        ([np.zeros((8, 8), np.uint8), b"x"], "image 1: has the type bytes"),
    ],
)
def test_what_is_no_image(detector, image, says):
    with pytest.raises(UserError, match=says):
        detector.predict(image)


def test_a_cut_pil_image(detector, tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)).save(file, format="PNG")
    (tmp_path / "cut.png").write_bytes(file.getvalue()[:2000])
    with pytest.raises(UserError, match="image 0"):
        detector.predict(Image.open(tmp_path / "cut.png"))


def test_regions_and_verdict(tiny_run, images, tmp_path):
    """Against the definition: boxes hold exactly the pixels above the threshold."""
    calibration = json.loads((tiny_run / "calibration.json").read_text())
    detector = vitlite.load(tiny_run, "cpu")
    low = detector.predict(images[-1])
    limit = float(np.quantile(low.map, 0.9))
    detector.calibration = {**calibration, "pixel_threshold": limit, "image_threshold": low.score - 1e-6}
    found = detector.predict(images[-1])
    assert (found.is_defect, found.verdict) == (True, "defect")
    assert found.defect_pixels == int((found.map > limit).sum()) > 0
    covered = np.zeros(found.map.shape, bool)
    for x0, y0, x1, y1 in found.regions:
        assert (found.map[y0:y1, x0:x1] > limit).any()
        covered[y0:y1, x0:x1] = True
    assert not (found.map > limit)[~covered].any()
    assert "map" not in repr(found)


def test_categories(detector):
    grey = np.full((20, 20), 90, np.uint8)
    assert detector.predict(grey, category="weave").score == detector.predict(grey).score
    with pytest.raises(UserError, match="calibrated for weave"):
        detector.predict(grey, category="nut")
    for category in (["weave"], 3, {}):
        with pytest.raises(UserError, match="must be the name of one category"):
            detector.predict(grey, category=category)


def test_scoring_in_bfloat16_changes_scores_a_little(tiny_run, images, tmp_path):
    exact, lower = vitlite.load(tiny_run, "cpu"), vitlite.load(tiny_run, "cpu", precision="bfloat16")
    for one, two in zip(exact.predict(images), lower.predict(images)):
        assert one.score != two.score
        assert two.score == pytest.approx(one.score, rel=0.02)
        assert two.map.dtype == np.float32
    assert exact.digest() != lower.digest()
    assert [vitlite.evaluate(one)["about"]["precision"] for one in (exact, lower)] == ["float32", "bfloat16"]
    copy = pickle.loads(pickle.dumps(lower))
    assert copy.digest() == lower.digest()
    assert copy.predict(images[0]).score == lower.predict(images[0]).score
    with pytest.raises(UserError, match=r"precision=bfloat16.*has its own"):
        vitlite.load(tmp_path / "model.onnx", precision="bfloat16")
    with pytest.raises(UserError, match="precision=float16: sivt scores in float32 or bfloat16"):
        vitlite.load(tiny_run, precision="float16")


def test_threads_give_the_numbers_of_one(tiny_run, images):
    """Lists of different lengths, in a fresh detector, so that what the first call makes is made under contention."""
    alone, shared, start = vitlite.load(tiny_run, "cpu"), vitlite.load(tiny_run, "cpu"), threading.Barrier(4)
    lists = [images[n % 4 : n + 1] for n in range(8)] * 2

    def work(number):
        if number < 4:
            start.wait()
        return shared.predict(lists[number])

    wanted = [alone.predict(part) for part in lists]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(work, range(len(lists))), wanted, strict=True):
            for one, other in zip(found, expected, strict=True):
                same(one, other)


def test_an_exported_file_loads_too(images):
    pytest.importorskip("onnxruntime")
    run = Path(__file__).parent / "old_run/runs/anovit"
    exported, detector = vitlite.load(run / "model.onnx"), vitlite.load(run, "cpu")
    for one, other in zip(exported.predict(images[:3]), detector.predict(images[:3]), strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-4)
        assert one.map.shape == other.map.shape
    for given in (exported, str(run / "model.onnx")):
        with pytest.raises(UserError, match=r"model\.onnx.*run"):
            vitlite.evaluate(given)


def test_names_are_lazy_and_not_shadowed():
    """The functions stay functions whatever is imported, and the package itself loads nothing heavy."""
    code = (
        "import sys, vitlite\n"
        "assert not {'torch', 'numpy', 'PIL', 'scipy', 'vitlite.api'} & set(sys.modules)\n"
        "assert {'train', 'evaluate', 'load', 'Prediction', 'UserError'} <= set(dir(vitlite))\n"
        "from vitlite import train, evaluate, load\n"
        "assert 'torch' not in sys.modules\n"
        "import vitlite.engine.train, vitlite.engine.evaluate\n"
        "assert vitlite.train is train and callable(train)\n"
        "assert vitlite.evaluate is evaluate and callable(evaluate)\n"
        "import inspect; assert inspect.isfunction(vitlite.load)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
