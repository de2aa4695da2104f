"""The benchmark of the input pipeline: what it calls waiting is waiting."""

import time

import pytest
import torch

from vitlite.bench import pipeline
from vitlite.bench._runs import settings_for
from vitlite.images.tiles import View


def test_a_line_for_each_method(tiny_data, capsys):
    options = ["--data", str(tiny_data), "--methods", "vtadl,l2cae", "--images", "4", "--steps", "1", "--rounds", "1"]
    assert pipeline.main(options) == 0
    machine, first, *_, vtadl, l2cae = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in machine
    assert first.startswith("4 images of ")
    for name, line in (("vtadl", vtadl), ("l2cae", l2cae)):
        cells = line.split()
        assert cells[0] == name
        step, share, files, memory, ratio, decoded = (float(cell.rstrip("%")) for cell in cells[1:])
        assert 0 < share < 100
        assert min(step, files, memory, decoded) > 0
        assert ratio == pytest.approx(files / memory, rel=0.1)


def test_a_slow_cache_is_seen(tiny_data, tmp_path, monkeypatch):
    """With a cache that takes longer than the step, most of the step is fetching."""
    from vitlite.engine.features import FeatureCache

    options = pipeline.parse(["--data", str(tiny_data), "--steps", "2"])
    settings = settings_for("vtadl", tiny_data)
    method = pipeline.untrained(settings, options)
    paths = sorted((tiny_data / "weave/train/good").iterdir())[:2]
    fetch = FeatureCache.take

    def slow(cache, indices):
        time.sleep(2.0)
        return fetch(cache, indices)

    quick = pipeline.training(method, settings, paths, tmp_path, options)
    monkeypatch.setattr(FeatureCache, "take", slow)
    seconds, share = pipeline.training(method, settings, paths, tmp_path, options)
    assert seconds > 2.0
    assert share > quick[1]
    assert share * seconds >= 2.0


def test_images_from_files_and_from_memory_are_the_same(tiny_data):
    """Both ways score the same images, so that their speeds can be compared."""
    seen = []

    class Method(torch.nn.Module):
        config = type("Config", (), {"view": View(32)})

        def anomaly(self, images):
            seen.append(images.sum())
            return None, images.flatten(1).mean(1)

    paths = sorted((tiny_data / "weave/train/good").iterdir())[:4]
    pipeline.scoring(Method(), paths, pipeline.parse(["--rounds", "1"]))
    assert len(seen) == 3  # one to warm up, from files, from memory
    assert len({float(s) for s in seen}) == 1


@pytest.mark.parametrize("option", ["--steps", "--images", "--rounds"])
def test_wrong_numbers_end_with_2(option):
    with pytest.raises(SystemExit) as end:
        pipeline.parse([option, "0"])
    assert end.value.code == 2


def test_a_method_that_does_not_exist_is_said_first(capsys):
    from vitlite.errors import UserError

    with pytest.raises(UserError, match="foo"):
        pipeline.main(["--methods", "vtadl,foo"])
    assert capsys.readouterr().out == ""
