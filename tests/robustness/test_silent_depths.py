"""Valid files whose bit depth is easy to mistake, each against the same set written plainly with 8 bits."""

import logging
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from commands import refused, rows_of
from commands import vitlite as command
from deep_files import png
from PIL import Image

import vitlite
from vitlite import data
from vitlite.engine.calibrate import recalibrate
from vitlite.engine.detector import Detector, load_calibration
from vitlite.engine.features import with_scale
from vitlite.engine.settings import load_settings
from vitlite.engine.train import train
from vitlite.errors import UserError
from vitlite.export.metadata import describe, dumps, loads, scale_of
from vitlite.images import ImageError, read_image
from vitlite.images.reading import read_noted, read_stored
from vitlite.images.scale import Reading
from vitlite.methods.config import TrainingConfig


def grey(plain):
    return plain.mean(axis=2)


def as_png(path, values):
    path.write_bytes(png(np.rint(values).astype(np.uint16)))


def as_tiff(kind):
    def write(path, values):
        values = values if np.dtype(kind).kind == "f" else np.rint(values)
        pytest.importorskip("tifffile").imwrite(path, values.astype(kind), **RGB[values.ndim])

    return write


RGB = {2: {}, 3: {"photometric": "rgb"}}
# name: (what is written for an 8-bit image (H, W, 3), how, the scale that training takes)
DEPTHS = {
    "8 bits in 16, grey": (grey, as_png, (0, 255)),
    "10 bits, grey": (lambda p: grey(p) * 4, as_png, (0, 1023)),
    "10 bits, colour": (lambda p: p * 4.0, as_png, (0, 1023)),
    "12 bits, grey": (lambda p: grey(p) * 16, as_png, (0, 4095)),
    "12 bits, colour": (lambda p: p * 16.0, as_tiff("uint16"), (0, 4095)),
    "14 bits, colour": (lambda p: p * 64.0, as_tiff(">u2"), (0, 16383)),
    "16 bits, colour": (lambda p: p * 257.0, as_png, (0, 65535)),
    "12 bits, signed": (lambda p: p * 16.0, as_tiff("int16"), (0, 4095)),
    "12 bits in 32": (lambda p: grey(p) * 16, as_tiff("uint32"), (0, 4095)),
    "floats to 1": (lambda p: p / 255.0, as_tiff("float32"), (0, 1)),
    "floats to 255": (lambda p: grey(p), as_tiff("float64"), (0, 255)),
    "floats to 65535": (lambda p: grey(p) * 257, as_tiff("float32"), (0, 65535)),
    "10 bits with an offset, grey": (lambda p: grey(p) * 4 + 30000, as_png, None),
    "10 bits with an offset, colour": (lambda p: p * 4.0 + 60000, as_png, None),
    "negative": (lambda p: grey(p) * 4 - 500, as_tiff("int16"), None),
    "degrees": (lambda p: grey(p) / 10 + 290, as_tiff("float32"), None),
}


@pytest.fixture(scope="module")
def plain(tiny_data):
    """The training images and the defective ones, as arrays."""
    found = data.open_dataset(tiny_data)
    return [read_image(sample.path) for sample in found.train], [
        read_image(sample.path) for sample in found.test if sample.label
    ]


def written(folder, arrays, convert, write):
    folder.mkdir()
    paths = [folder / f"{i:03d}.{'png' if write is as_png else 'tif'}" for i in range(len(arrays))]
    for path, array in zip(paths, arrays):
        write(path, convert(array))
    return paths


def learned(paths):
    samples = [data.Sample(path, "a", "train", "good", 0, None) for path in paths]
    return with_scale(TrainingConfig(), samples).image_scale


@pytest.mark.parametrize("name", DEPTHS)
def test_every_depth_gives_the_image_of_8_bits(tmp_path, plain, name):
    convert, write, scale = DEPTHS[name]
    good, bad = plain
    reading = Reading(learned(written(tmp_path / "good", good, convert, write)))
    if scale is not None:
        assert reading.scale == scale
    for original, path in zip(bad, written(tmp_path / "bad", bad, convert, write)):
        image, notes, _ = read_noted(path, reading)
        same = original if convert(original).ndim == 3 else np.repeat(grey(original)[..., None], 3, axis=2)
        if scale is None:  # less contrast, but nothing lost: no part is cut off and at least a third of the levels left
            slope, base = np.polyfit(same.ravel(), image.ravel(), 1)
            assert slope > 1 / 3
            assert np.abs(image - (slope * same + base)).max() < 1
        else:
            assert np.abs(image - same.astype(float)).max() < 1.5  # 255 times 4 is not 1023, and grey is rounded
        assert notes == []


def test_two_depths_in_one_set_are_named(tmp_path, plain, caplog):
    good, _ = plain
    paths = [as_png(tmp_path / f"{i}.png", grey(x).astype(np.uint16) * (257, 16)[i % 2]) for i, x in enumerate(good)]
    learned([tmp_path / f"{i}.png" for i in range(len(paths))])
    assert f"next to nothing is left of {len(good) // 2} of {len(good)} images, which use levels such as" in caplog.text


def test_8_bit_files_beside_others_keep_their_levels(tmp_path, plain, caplog):
    good, _ = plain
    wide = written(tmp_path / "wide", good, lambda p: p * 4.0, as_png)
    for i, array in enumerate(good):
        Image.fromarray(array).save(tmp_path / "wide" / f"plain{i}.png")
    eight = sorted((tmp_path / "wide").glob("plain*.png"))
    with caplog.at_level(logging.INFO):
        scale = learned([*wide, *eight])
    assert scale == (0, 1023)
    assert "8-bit files keep 0 to 255" in caplog.text
    for path, array in zip(eight, good):
        np.testing.assert_array_equal(read_noted(path, Reading(scale))[0], array)


@pytest.mark.parametrize("level", [0, 700])
def test_images_of_one_level_teach_nothing(tmp_path, caplog, level):
    paths = written(tmp_path / "a", [np.full((20, 20), level)] * 3, lambda p: p, as_png)
    assert learned(paths) is None
    assert f"one level alone, {level}" in caplog.text


def test_floats_and_integers_in_one_run_are_refused(tmp_path, plain):
    good, _ = plain
    paths = written(tmp_path / "a", good, lambda p: p * 4.0, as_png)
    paths += written(tmp_path / "b", good, lambda p: p / 255.0, as_tiff("float32"))
    with pytest.raises(UserError, match="mixed"):
        learned(paths)


@pytest.fixture(scope="module")
def wide_run(tiny_run, tiny_data, tmp_path_factory):
    """The run of tiny_run, on the same images with 10 bits, and the folder of these."""
    folder = tmp_path_factory.mktemp("wide")
    shutil.copytree(tiny_data, folder / "set")
    for path in (folder / "set").rglob("*.png"):
        if "ground_truth" not in path.parts:
            as_png(path, np.asarray(Image.open(path)) * 4.0)
    settings = load_settings(tiny_run)
    config = replace(settings.config, white=1020.0)
    train(replace(settings, data=str(folder / "set"), config=config), folder / "run", device="cpu")
    return folder


def test_every_command_reads_on_the_scale_of_the_run(tiny_run, tiny_data, wide_run, tmp_path):
    """On the scale on which 10 bits are exactly four times the 8-bit images, every number is the same."""
    run, folder = wide_run / "run", wide_run / "set"
    assert load_settings(run).config.image_scale == (0, 1020)
    own, plain = load_calibration(run), load_calibration(tiny_run)
    assert (own["black"], own["white"]) == (0, 1020)
    assert (plain["black"], plain["white"]) == (None, None)
    assert own["good_scores"] == plain["good_scores"]
    assert vitlite.evaluate(run)["mean"] == vitlite.evaluate(tiny_run)["mean"]
    assert recalibrate(Detector(run, "cpu"))["good_scores"] == plain["good_scores"]
    rows, shown = [], []
    for one, images in ((run, folder), (tiny_run, tiny_data)):
        command("predict", one, images / "weave/test", "--out", tmp_path / one.name, "--quiet")
        rows.append([(row["score"], row["verdict"]) for row in rows_of(tmp_path / one.name / "predictions.csv")])
        command("report", one, "--out", tmp_path / f"{one.name}.html", "--quiet")
        found = re.findall('data:image/jpeg[^"]+', (tmp_path / f"{one.name}.html").read_text())
        shown.append(sorted(found))
    assert rows[0] == rows[1]
    assert shown[0] == shown[1] != []
    defect = next((folder / "weave/test").glob("[!g]*/*.png"))
    with Image.open(defect) as image:
        scores = [vitlite.load(run).predict(source).score for source in (defect, image, read_stored(defect)[0].values)]
    assert scores == [vitlite.load(tiny_run).predict(tiny_data / defect.relative_to(folder)).score] * 3
    overlay = next((tmp_path / "run").glob("*.png"))
    np.testing.assert_array_equal(
        np.asarray(Image.open(overlay)), np.asarray(Image.open(tmp_path / "tiny" / overlay.name))
    )


def test_metadata_of_an_exported_file_have_the_scale(wide_run, tiny_run):
    for run, scale in ((wide_run / "run", (0, 1020)), (tiny_run, None)):
        metadata = loads(dumps(describe(load_settings(run), load_calibration(run))), "a.onnx")
        assert scale_of(metadata) == scale
    assert scale_of({"input": {}}) is None  # of an older version
    metadata["input"].update(black=5, white=5)
    with pytest.raises(UserError, match="damaged"):
        loads(dumps(metadata), "a.onnx")


@pytest.mark.slow
def test_the_exported_file_has_the_scale(wide_run, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run, path = wide_run / "run", next((wide_run / "set/weave/test").glob("[!g]*/*.png"))
    command("export", run, "--out", tmp_path / "a.onnx", "--quiet")
    exported = vitlite.load(tmp_path / "a.onnx")
    assert exported.reading.scale == (0, 1020)
    assert exported.metadata["input"]["white"] == 1020
    assert exported.predict(path).score == pytest.approx(vitlite.load(run).predict(path).score, rel=1e-4)


def test_a_resumed_run_keeps_its_scale(wide_run, tmp_path):
    shutil.copytree(wide_run / "run", tmp_path / "run")
    (tmp_path / "run/calibration.json").unlink()
    train(load_settings(tmp_path / "run"), tmp_path / "run", device="cpu", resume=True)
    assert load_calibration(tmp_path / "run")["white"] == 1020


def test_a_scale_that_was_changed_after_training_is_refused(wide_run, tmp_path):
    shutil.copytree(wide_run / "run", tmp_path / "run")
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace("white = 1020.0", "white = 4095.0"))
    refused(
        "predict", tmp_path / "run", wide_run / "set/weave/test", "--out", tmp_path / "o", says="another black or white"
    )


def test_what_is_drawn_on_images_of_a_camera_has_their_scale(tmp_path, plain):
    for name in ("wide", "eight"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "parts", plain[0], lambda p: p * 4.0, as_png)
        if name == "eight":
            for path, array in zip(sorted((tmp_path / "eight/parts").iterdir()), plain[0]):
                Image.fromarray(array).save(path)
        data.draw_set(tmp_path / name / "parts", tmp_path / name / "drawn", good=4, defects=1, kinds="soft")
        command("data", "corrupt", tmp_path / name / "parts", "--out", tmp_path / name / "sheet.png", "--count", "2")
    for file in ("drawn/test/good/000.png", "drawn/test/good/003.png", "sheet.png"):
        wide, eight = (np.asarray(Image.open(tmp_path / name / file)).astype(int) for name in ("wide", "eight"))
        assert np.abs(wide - eight)[:228].max() <= 2  # of a sheet the row of the originals


def test_an_image_of_another_camera_is_named_once(wide_run, tmp_path, plain):
    written(tmp_path / "full", plain[0][:3], lambda p: p * 257.0, as_png)
    _, said = command("predict", wide_run / "run", tmp_path / "full", "--out", tmp_path / "out")
    assert said.count("000.png: levels") == said.count("lie outside the scale of this run, 0 to 1020") == 1


def test_what_data_check_says(tmp_path, plain):
    good, _ = plain
    written(tmp_path / "parts", good, lambda p: p * 4.0, as_png)
    text = data.check(tmp_path / "parts").text()
    assert "of 16-bit files" in text
    assert "10 bit; training takes black=0 and white=1023" in text
    written(tmp_path / "plain", good, lambda p: p * 257.0, as_png)
    assert data.check(tmp_path / "plain").clean


def test_the_limit_on_megapixels_reaches_every_reader(tiny_run, tiny_data, tmp_path):
    images, limit = tiny_data / "weave/test/good", ("--max-megapixels", "0.004")  # 64 x 64 are 0.0041
    over = "over the limit of 4000 (max_megapixels=0.004)"
    assert over in refused("predict", tiny_run, images, "--out", tmp_path / "a", "--quiet", *limit, says="none of")
    assert over in refused("data", "check", tiny_data, *limit, says="none of")
    _, said = command("train", "--data", tiny_data, "--method", "sivt", "--out", tmp_path / "r", *limit, code=2)
    assert said.count(over) == 3
    assert "skipped 7 more" in said
    detector = vitlite.load(tiny_run, max_megapixels=0.004)
    with pytest.raises(ImageError, match=r"max_megapixels=0\.004"):
        detector.predict(next(images.iterdir()))
    with pytest.raises(UserError, match="max_megapixels=0: must be above 0"):
        vitlite.load(tiny_run, max_megapixels=0)
    vitlite.load(tiny_run, max_megapixels=0.0041).predict(next(images.iterdir()))
