"""``vitlite train``: what it takes for granted, and the list of settings."""

import pytest
from commands import refused, vitlite
from tiny_settings import METHODS, options_of

from vitlite.data import synthesize
from vitlite.files import Claim
from vitlite.methods import REGISTRY, method_class
from vitlite.methods.kinds import kinds
from vitlite.methods.meaning import MEANINGS
from vitlite.results import read


@pytest.fixture
def trained(monkeypatch):
    """What training would begin with, in place of a training."""
    begun = []
    monkeypatch.setattr("vitlite.engine.train.train", lambda settings, out, **_: begun.append((settings, out)))
    return begun


def test_a_folder_is_enough(trained, tmp_path):
    """`train DIR` is `train --method sivt --data DIR`."""
    vitlite("train", tmp_path)
    vitlite("train", "--method", "sivt", "--data", tmp_path, "--out", "runs/sivt")
    assert trained[0] == trained[1]
    assert trained[0][0].method == "sivt"
    assert trained[0][0].data == str(tmp_path)


@pytest.mark.parametrize("method", REGISTRY)
def test_every_setting_is_explained(method, trained):
    """Once, with the value that it has in the preset or by --set, and with its meaning."""
    lines = vitlite("train", "--method", method, "--help-settings", "--set", "batch_size=3")[0].splitlines()
    names = [line.split("=")[0].strip() for line in lines if line.startswith("  ")]
    config = method_class(method).config_class()
    assert sorted(names) == sorted(kinds(config))
    explained = {name for own in MEANINGS.values() for name in own} | set(config.meanings)
    assert set(names) <= explained
    assert any(line.split() == ["batch_size=3", *MEANINGS["training"]["batch_size"].split()] for line in lines)
    assert not trained


def test_no_meaning_is_left_over():
    known = {name for method in REGISTRY for name in kinds(method_class(method).config_class())}
    assert {name for own in MEANINGS.values() for name in own} <= known


def test_a_run_that_is_being_trained_says_so(tiny_run, tmp_path):
    (tmp_path / "config.toml").write_text((tiny_run / "config.toml").read_text())
    with Claim(tmp_path, "training") as claim:
        claim.take()
        refused(
            "predict", tmp_path, tiny_run, "--out", tmp_path / "o", says="training is running there; wait for its end"
        )
        (tmp_path / "checkpoint.pt").write_bytes((tiny_run / "checkpoint.pt").read_bytes())
        refused("eval", tmp_path, says="training is running there; wait for its end")
    refused("eval", tmp_path, says="training did not finish; resume it")


def test_one_model_for_each_category(tmp_path):
    """The row of a paper's one-class table; again, nothing is trained, and the table is the same."""
    data = synthesize(tmp_path / "data", seed=1, size=64, categories=("weave", "gear"), train=6, good=3, defects=1)
    command = ("train", "--method", "knn", "--data", data, "--separate", "--out", tmp_path / "out", "--device", "cpu")
    text = vitlite(*command, *options_of(METHODS["knn"]))[0]
    head, images = (line.split() for line in text.splitlines()[:2])
    assert head == ["gear", "weave", "mean", "std"]
    single = [read(tmp_path / "out" / name)["mean"]["image_auroc"] for name in ("gear", "weave")]
    expected = [*single, sum(single) / 2, abs(single[0] - single[1]) / 2**0.5]
    assert [float(cell) for cell in images[-4:]] == [pytest.approx(100 * value, abs=0.051) for value in expected]
    assert (tmp_path / "out/separate.csv").read_text().count("\n") == 5
    before = (tmp_path / "out/gear/checkpoint.pt").stat().st_mtime_ns
    assert vitlite(*command, *options_of(METHODS["knn"]))[0] == text
    assert (tmp_path / "out/gear/checkpoint.pt").stat().st_mtime_ns == before
    refused("train", "--separate", "--out", tmp_path / "other", says="--separate: needs --data DIR")


MOST = "a network sees at most 4096 x 4096 pixels, or as many in another shape; give less"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tile", 320, "--scale", 100), f"--scale 100: makes 32000 pixels of a tile of 320; {MOST}"),
        (("--tile", 320, "--scale", 1e308), "--scale 1e+308: makes inf pixels of a tile of 320"),
        (("--tile", 32000), f"--tile 32000: {MOST}"),
        (("--tile", 64, "--set", "image_size=32000"), f"--set image_size=32000: {MOST}"),
    ],
)
def test_a_network_input_that_no_memory_holds_is_refused(options, says, tiny_data, tmp_path):
    refused("train", tiny_data, *options, "--out", tmp_path / "run", says=says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tile", 320, "--set", "tile=256"), "--tile: not together with --set tile="),
        (("--tile", 64, "--scale", 2, "--set", "image_size=64"), "--scale: not together with --set image_size="),
        (("--target-fpr", 0.1, "--set", "target_fpr=0.2"), "--target-fpr: not together with --set target_fpr="),
    ],
)
def test_a_setting_is_given_once(options, says, tiny_data, tmp_path):
    refused("train", tiny_data, *options, "--out", tmp_path / "run", says=says)
    assert not (tmp_path / "run").exists()
