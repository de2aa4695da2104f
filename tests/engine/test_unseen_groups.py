"""Near-copies of a good image are not among the images that it is compared with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from measured_values import measured

from vitlite.engine import train as training
from vitlite.engine.settings import load_settings
from vitlite.nn.score import PlaceStatistics, compare

RNG = np.random.default_rng(0)


def near_copies(count, size, shape=(16, 16)):
    """Images (count * size, h, w) in groups of ``size`` that are nearly the same, and their numbers."""
    own = RNG.normal(3, 1, (count, *shape))
    copies = np.repeat(own, size, axis=0) + RNG.normal(0, 0.05, (count * size, *shape))
    return copies.astype(np.float32), [i // size for i in range(count * size)]


def test_near_copies_do_not_make_a_score_lower_than_that_of_a_new_image():
    """Of three near-copies, two stay if the image leaves alone: its places then seem usual."""
    differences = {False: [], True: []}
    for _ in range(30):
        good, numbers = near_copies(6, 3)
        new = near_copies(6, 1)[0]
        for grouped, part in differences.items():
            method, found = measured(good, groups=numbers if grouped else ())
            method.set_head("max", "scaled")
            method.places.learn(found.statistics)
            fresh = method.anomaly_from(torch.from_numpy(new))[1].mean().item()
            part.append(np.mean([image.score for image in found.good(method, itself=False)]) - fresh)
    alone, together = ((np.mean(part), np.std(part) / np.sqrt(30)) for part in differences.values())
    assert alone[0] < -6 * alone[1]
    assert together[0] > -2 * together[1]
    assert together[0] < -alone[0] / 2  # of fewer images the places are known less well


def test_a_group_leaves_together():
    good, numbers = near_copies(5, 2)
    good, numbers = np.concatenate([good, near_copies(1, 1)[0]]), [*numbers, None]
    drawn_on = np.repeat(good, 2, axis=0) + np.float32(1)
    found = measured(good, drawn_on, groups=numbers)[1]
    for drawn, rows in ((False, slice(3, 11)), (True, slice(1, 22, 3))):
        source = [i // 2 for i in range(1, 22, 3)] if drawn else range(3, 11)
        values = found.compared(rows, "scaled", drawn)
        for i, row in enumerate(source):
            others = PlaceStatistics((16, 16))
            group = {row} if row == 10 else {row - row % 2, row - row % 2 + 1}
            others.add(torch.from_numpy(good[[place for place in range(11) if place not in group]]))
            plain = torch.from_numpy(good[row] + np.float32(drawn))
            torch.testing.assert_close(values[i], compare(plain, "scaled", *others.of_all()), rtol=1e-4, atol=1e-5)
    assert not torch.equal(
        values, measured(good, np.repeat(good, 2, axis=0) + np.float32(1))[1].compared(rows, "scaled", True)
    )


@pytest.mark.parametrize("how", ["mean", "scaled", "absolute"])
def test_without_larger_groups_nothing_changes(how):
    good = near_copies(12, 1)[0]
    drawn = np.repeat(good, 2, axis=0) + np.float32(1)
    plain, single = measured(good, drawn)[1], measured(good, drawn, groups=[*range(11), None])[1]
    for rows, which in ((slice(0, 8), False), (slice(8, 12), False), (slice(0, 24, 5), True)):
        assert torch.equal(single.compared(rows, how, which), plain.compared(rows, how, which))
    # The others of a batch with a group are compared as without it.
    paired = measured(good, drawn, groups=[0, 0, *range(1, 11)])[1]
    assert torch.equal(paired.compared(slice(0, 8), how)[2:], plain.compared(slice(0, 8), how)[2:])
    assert not torch.equal(paired.compared(slice(0, 8), how)[:2], plain.compared(slice(0, 8), how)[:2])


def test_all_tiles_of_a_group_leave():
    good = near_copies(12, 1)[0]
    found = measured(good, groups=[0, 0, 1, 2, 3, 4, *[None] * 6])[1]
    found.samples, found.groups = found.samples[:6], found.groups[:6]
    found.rows = [range(2 * image, 2 * image + 2) for image in range(6)]
    others = PlaceStatistics((16, 16))
    others.add(torch.from_numpy(good[4:]))
    expected = compare(torch.from_numpy(good[:4]), "scaled", *others.of_all())
    torch.testing.assert_close(found.compared(slice(0, 4), "scaled"), expected, rtol=1e-4, atol=1e-5)


def test_a_group_of_nearly_all_images_stays(caplog):
    good, _ = near_copies(3, 4)
    found, plain = measured(good, groups=[0] * 10 + [1, 2])[1], measured(good)[1]
    for _ in range(2):
        assert torch.equal(found.compared(slice(0, 8), "scaled"), plain.compared(slice(0, 8), "scaled"))
    (line,) = caplog.messages
    assert line.startswith("groups: 10 of the 12 good images that set the threshold are one group")


@pytest.mark.parametrize("changes", [{"folds": 3}, {"folds": 0, "holdout": 0.7}])
def test_groups_leave_as_split_json_has_them(tiny_run, tmp_path, monkeypatch, changes):
    settings, kept = load_settings(tiny_run), []
    learn = training.learn_places

    def watched(method, found, loop):
        kept.append(found)
        learn(method, found, loop)

    monkeypatch.setattr(training, "learn_places", watched)
    monkeypatch.setattr(training, "FEWEST", 1)
    config = replace(settings.config, **changes, places="mean", groups=r"(?:00[0-2]()|00[3-5]()|00[6-8]()|0..())\.png")
    training.train(replace(settings, config=config), tmp_path / "run", device="cpu")
    (found,) = kept
    images = json.loads((tmp_path / "run/split.json").read_text())["images"]
    numbers = {image["file"]: image["group"] for image in images}
    names = [str(sample.path.relative_to(settings.data)) for sample in found.samples]
    assert found.groups == [numbers[name] for name in names]
    assert set(map(len, found.together.values())) == {3}
    # The promise counts these groups.
    calibration = json.loads((tmp_path / "run/calibration.json").read_text())
    assert (calibration["images"], calibration["groups"]) == (len(names), len(set(found.groups)))
    assert calibration["groups"] < calibration["images"]
