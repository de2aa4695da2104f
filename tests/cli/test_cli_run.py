"""train, eval, predict and doctor as a person types them."""

import json
import os
import shlex
import shutil

import numpy as np
import pytest
from commands import refused, rows_of, vitlite
from PIL import Image
from tiny_settings import TINY_OPTIONS, WITH_BACKBONE, options_of

from vitlite.files import Claim

KEYS = ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro_30", "aupro_05"]


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of the tiny run that a test may write into."""
    copy = tmp_path_factory.mktemp("run") / "tiny"
    shutil.copytree(tiny_run, copy)
    return copy


def test_train_eval_predict(tiny_data, tmp_path):
    out = tmp_path / "run"
    options = (*options_of(WITH_BACKBONE), "--device", "cpu")
    _, err = vitlite("train", "--method", "sivt", "--data", tiny_data, "--out", out, *options)
    assert "threshold" in err
    assert "random (seed 0)" in err
    vitlite("eval", out)
    results = json.loads((out / "results.json").read_text())
    assert set(KEYS) <= set(results["mean"])
    assert set(results["categories"]["weave"]["defects"]) == {"scratch", "spot", "missing"}
    assert all(0 <= results["mean"][k] <= 1 for k in KEYS)
    assert results["categories"]["weave"]["good"] == 4
    assert results["about"]["seed"] == 0
    rows = rows_of(out / "results.csv")
    assert [r["defect"] for r in rows] == ["all", "missing", "scratch", "spot", "all"]
    assert float(rows[0]["image_auroc"]) == pytest.approx(results["mean"]["image_auroc"], abs=1e-6)
    vitlite("predict", out, tiny_data / "weave/test/scratch", "--out", tmp_path / "p")
    assert len(rows_of(tmp_path / "p/predictions.csv")) == 2
    vitlite("train", "--resume", "--out", out)


def test_what_training_says_to_do_next_can_be_pasted(tiny_data, tmp_path):
    """Also where the run's name has a space; predict comes first, which needs no labelled images."""
    good, out = tiny_data / "weave/train/good", tmp_path / "two words"
    said, _ = vitlite("train", "--method", "sivt", "--data", good, "--out", out, *TINY_OPTIONS, "--device", "cpu")
    (line,) = (line for line in said.splitlines() if line.startswith("next: "))
    assert shlex.split(line)[:4] == ["next:", "vitlite", "predict", str(out)]


def test_two_processes_do_not_train_into_one_folder(run, tiny_data, tmp_path):
    before = sorted(os.listdir(run))
    for folder, arguments in (
        (run, ["--resume"]),
        (tmp_path, ["--method", "sivt"]),
        (tmp_path, ["--method", "sivt", "--data", tiny_data, *TINY_OPTIONS]),
    ):
        with Claim(folder, "training") as claim:
            claim.take()
            claim.take()
            refused("train", "--out", folder, *arguments, says=f"{folder}: another process is training there")
    assert os.listdir(tmp_path) == []
    vitlite("train", "--resume", "--out", run)
    assert sorted(os.listdir(run)) == before


def test_evaluating_needs_only_the_test_folders(run, tiny_data, tmp_path):
    shutil.copytree(tiny_data / "weave/test", tmp_path / "weave/test")
    shutil.copytree(tiny_data / "weave/ground_truth", tmp_path / "weave/ground_truth")
    vitlite("eval", run)
    whole = json.loads((run / "results.json").read_text())
    vitlite("eval", run, "--data", tmp_path)
    assert json.loads((run / "results.json").read_text())["mean"] == whole["mean"]


def test_predictions(run, tiny_data, tmp_path):
    """Files, a folder and a pattern; every kind of image; a broken one is a row; overlays at the original size."""
    odd = tmp_path / "ödd names"
    odd.mkdir()
    Image.fromarray(np.full((40, 90), 128, np.uint8)).save(odd / "grey one.png")
    Image.fromarray(np.full((70, 50, 3), 90, np.uint8)).save(odd / "colour.jpg")
    (odd / "broken.png").write_bytes(b"\x89PNG\r\n")
    out = tmp_path / "out"
    inputs = (odd, tiny_data / "weave/test/scratch/*.png", tiny_data / "weave/test/good/000.png")
    vitlite("predict", run, *inputs, "--out", out, code=3)
    rows = {os.path.basename(r["file"]): r for r in rows_of(out / "predictions.csv")}
    assert len(rows) >= 5
    assert "broken.png" in rows["broken.png"]["error"]
    assert rows["broken.png"]["score"] == ""
    assert Image.open(out / rows["grey one.png"]["overlay"]).size == (90, 40)
    assert Image.open(out / rows["colour.jpg"]["overlay"]).size == (50, 70)
    for row in rows.values():
        if not row["error"]:
            assert row["verdict"] in ("good", "defect")
            assert 0 <= float(row["percentile"]) <= 100
            assert (int(row["defect_pixels"]) > 0) == bool(row["regions"])


def test_one_scale_for_the_whole_call(run, tiny_data, tmp_path):
    """An image's overlay is the same bytes whatever else is scored with it."""
    alone, beside = tmp_path / "a", tmp_path / "b"
    image = tiny_data / "weave/test/scratch/000.png"
    vitlite("predict", run, image, "--out", alone)
    vitlite("predict", run, image, tiny_data / "weave/test/missing", "--out", beside)
    one = next(alone.glob("*.png"))
    assert one.read_bytes() == next(p for p in beside.glob("*000.png") if "missing" not in p.name).read_bytes()


def test_fail_on_defect(run, tiny_data, tmp_path):
    calibration = json.loads((run / "calibration.json").read_text())
    image = tiny_data / "weave/test/good/000.png"
    for threshold, code in ((-1.0, 1), (1e9, 0)):
        copy = tmp_path / f"run{code}"
        shutil.copytree(run, copy)
        (copy / "calibration.json").write_text(json.dumps({**calibration, "image_threshold": threshold}))
        again = ("--out", tmp_path / "o", "--overwrite")
        vitlite("predict", copy, image, *again, "--fail-on-defect", code=code)
        vitlite("predict", copy, image, *again)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for options in ((), ("--fail-on-defect",)):
        vitlite("predict", copy, image, broken, *again, *options, code=3)


def test_predicting_again_into_a_folder_of_the_images(run, tiny_data, tmp_path):
    """Nothing of what is scored is overwritten, and nothing is scored that was drawn."""
    images = tmp_path / "parts"
    shutil.copytree(tiny_data / "weave/test/good", images)
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    for inputs in ([images], [images / "000.png"], [f"{images}/*.png"]):
        refused("predict", run, *inputs, "--out", images, says=f"--out {images}: holds the image")
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before
    inner = shutil.copytree(images, images / "inner")  # the user's own, not what an earlier call drew
    for overwrite in ((), ("--overwrite",)):
        refused("predict", run, images, "--out", inner, *overwrite, says=f"--out {inner}: holds the image")
    assert {path.name: path.read_bytes() for path in inner.iterdir()} == before
    shutil.rmtree(inner)
    own = shutil.copytree(images, tmp_path / "own")  # photographs with the names that overlays would have
    for overwrite in ((), ("--overwrite",)):
        refused("predict", run, images / "000.png", "--out", own, *overwrite, says=f"--out {own}: holds 000.png, which")
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    checked = images / "checked"
    for _ in range(2):
        vitlite("predict", run, images, "--maps", "--out", checked, "--overwrite")
        assert len(rows_of(checked / "predictions.csv")) == len(before)
    refused("predict", run, checked / "000.png", images, "--out", tmp_path / "parts/checked/", says="holds the image")
    only = tmp_path / "only"
    shutil.copytree(checked, only / "checked")
    refused("predict", run, only, "--out", only / "checked", says="no image there but those of --out")


def test_predict_without_the_backbone_weights_or_the_data(backbone_run, tiny_data, tmp_path):
    """The run directory is all that scoring needs."""
    copy = shutil.copytree(backbone_run, tmp_path / "run")
    config = (copy / "config.toml").read_text().replace(str(tiny_data), "/nowhere")
    (copy / "config.toml").write_text(config.replace('weights = "none"', 'weights = "auto"'))
    vitlite("predict", copy, tiny_data / "weave/test/good", "--out", tmp_path / "o")


def test_doctor():
    text = vitlite("doctor")[0]
    first = (
        "device: ",
        "fused operators: ",
        "weights of the default method, efficientnet_lite2 for sivt: ",
        "ONNX files: ",
    )
    at = [text.index(word) for word in (*first, "python ", "operators:\n", "backbone weights")]
    assert at == sorted(at)
    assert at[0] == 0
    for word in ("torch", "operators:", "attention", "ssim", "precision=auto", "efficientnet_lite0"):
        assert word in text
