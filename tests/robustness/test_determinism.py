"""The same numbers from the same seed, whatever decodes the images; and --deterministic."""

import json
import os
from dataclasses import replace

import pytest
import torch
from commands import refused, vitlite

from vitlite.engine.checkpoint import load_checkpoint
from vitlite.engine.detector import Detector
from vitlite.engine.distributed import CUBLAS, deterministic
from vitlite.engine.evaluate import evaluate
from vitlite.engine.settings import load_settings
from vitlite.engine.train import train
from vitlite.errors import UserError
from vitlite.images import loading
from vitlite.images.loading import load_ahead
from vitlite.methods.sivt import SIVT


@pytest.fixture
def workers(monkeypatch):
    """Sets how many threads decode images, and says how many were asked for."""
    asked = []

    def choose(number):
        def load(paths, size, **options):
            asked.append(number)
            return load_ahead(paths, size, **{**options, "workers": number})

        monkeypatch.setattr(loading, "load_ahead", load)

    choose.asked = asked
    return choose


def test_training_and_scoring_do_not_depend_on_the_number_of_workers(tiny_run, tiny_data, tmp_path, workers):
    settings = load_settings(tiny_run)
    found = []
    for number in (1, 5):
        workers(number)
        run = tmp_path / f"run{number}"
        train(settings, run, device="cpu")
        results = evaluate(Detector(run, "cpu"), data=tiny_data)
        vitlite("predict", run, tiny_data, "--out", tmp_path / f"out{number}", "--quiet")
        rows = (tmp_path / f"out{number}/predictions.csv").read_text()
        found.append((load_checkpoint(run, "sivt")["model"], results, (run / "calibration.json").read_text(), rows))
    assert {1, 5} == set(workers.asked)
    (model, *one), (other, *five) = found
    assert all(torch.equal(model[name], other[name]) for name in model)
    assert one == five


def test_results_say_how_they_were_made(tiny_run, tiny_data, tmp_path):
    settings = load_settings(tiny_run)
    train(replace(settings, seed=3), tmp_path / "run", device="cpu")
    vitlite("eval", tmp_path / "run", "--quiet", "--device", "cpu")
    about = json.loads((tmp_path / "run/results.json").read_text())["about"]
    assert about["seed"] == 3
    assert about["versions"]["torch"] == torch.__version__
    assert set(about["versions"]) == {"vitlite", "torch", "numpy", "python"}
    assert (about["device"], about["threads"]) == ("cpu", torch.get_num_threads())
    assert (about["precision"], about["training_precision"]) == ("float32", settings.config.precision)
    assert about["deterministic"] is False


def test_deterministic_changes_no_number_and_is_recorded(tiny_run, tiny_data, tmp_path):
    """And torch is left as it was."""
    settings = load_settings(tiny_run)
    before = os.environ.get(CUBLAS)
    with deterministic():
        train(settings, tmp_path / "run", device="cpu")
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.get(CUBLAS) == before
    own, other = (load_checkpoint(run, "sivt")["model"] for run in (tmp_path / "run", tiny_run))
    assert all(torch.equal(own[name], other[name]) for name in own)
    vitlite("eval", tmp_path / "run", "--deterministic", "--quiet", "--device", "cpu")
    assert json.loads((tmp_path / "run/results.json").read_text())["about"]["deterministic"] is True
    image = tiny_data / "weave/test/good/000.png"
    vitlite("predict", tmp_path / "run", image, "--out", tmp_path / "out", "--deterministic", "--quiet")
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def uncertain(monkeypatch):
    """A method with an operator that torch has no deterministic version of, on any device."""

    def spoil(name):
        function = getattr(SIVT, name)

        def spoilt(self, values):
            torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
            return function(self, values)

        monkeypatch.setattr(SIVT, name, spoilt)

    return spoil


def test_an_operator_that_varies_is_refused(tiny_run, tiny_data, tmp_path, uncertain):
    uncertain("frozen")
    run, image = tmp_path / "run", tiny_data / "weave/test/good/000.png"
    train(load_settings(tiny_run), run, device="cpu")  # without the option it is taken as it is
    predict = ["predict", run, image, "--out", tmp_path / "out"]
    for args in (["eval", run], predict, ["train", "--resume", "--out", run]):
        if args[0] == "train":
            (run / "calibration.json").unlink()  # not trained to the end
        line = refused(*args, "--device", "cpu", "--deterministic", "--quiet", says="--deterministic: put_")
        assert line.endswith("leave it out, or use --device cpu")
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="something else"), deterministic():
        raise RuntimeError("something else")
    with pytest.raises(UserError, match="bad"), deterministic():
        raise UserError("bad")


def test_without_it_nothing_changes():
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
