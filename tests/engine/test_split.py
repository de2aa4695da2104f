"""Which good images are held out, and which of the others train."""

from dataclasses import replace
from pathlib import Path

import pytest

from vitlite.data import Sample, open_dataset
from vitlite.data.parting import hold_out
from vitlite.engine.split import Split, make_split, recorded, save_split, split_good
from vitlite.errors import UserError
from vitlite.methods.config import TrainingConfig


def test_hold_out_keeps_both_sides(tiny_data):
    samples = open_dataset(tiny_data).train
    for share in (0.001, 0.1, 0.5, 0.99):
        train, held = hold_out(samples, share, 0)
        assert train
        assert held
        assert sorted(map(str, samples)) == sorted(map(str, train + held))
        assert (train, held) == hold_out(samples, share, 0)
    assert hold_out(samples, 0, 0) == (list(samples), [])
    assert hold_out(samples[:1], 0.5, 0) == (list(samples[:1]), [])


@pytest.mark.parametrize(
    ("category", "seed", "held"),
    [
        ("weave", 0, [8, 23, 25, 27, 28, 29]),
        ("b,x é", 3, [2, 11, 17, 19, 21, 27]),
        ("瓶", 2**40, [7, 8, 15, 17, 23, 25]),
    ],
)
def test_splits_stay_as_they_were(category, seed, held):
    """The thresholds of earlier runs are set anew from the images that these had held out."""
    samples = [Sample(Path(str(i)), category, "train", "good", 0, None) for i in range(30)]
    assert [int(s.path.name) for s in hold_out(samples, 0.2, seed)[1]] == held


def test_a_category_whose_name_is_no_text_is_split_too():
    samples = [Sample(Path(str(i)), name, "train", "good", 0, None) for name in ("\udcff", "\udcfe") for i in range(30)]
    train, held = hold_out(samples, 0.2, 0)
    assert (len(train), len(held)) == (48, 12)
    assert (train, held) == hold_out(samples, 0.2, 0)


def test_a_data_sets_own_validation_images_are_held_out(tiny_data):
    dataset = open_dataset(tiny_data)
    own = [replace(sample, category="other") for sample in dataset.train]
    own[:3] = [replace(sample, split="validation") for sample in own[:3]]
    dataset = replace(dataset, train=[*dataset.train, *own[3:]], validation=own[:3])
    train, held = split_good(dataset, TrainingConfig(holdout=0.2), 0)
    assert [s for s in held if s.category == "other"] == own[:3]
    assert sum(s.category == "weave" for s in held) == 2
    assert len(train) == 7 + 8
    assert not set(train) & set(held)


@pytest.mark.parametrize("count", [1, 3, 100])
def test_training_on_fewer_images(tiny_data, count):
    """The threshold's images stay the same, and more images are the fewer ones and others."""
    dataset = open_dataset(tiny_data, "all")
    whole, apart = split_good(dataset, TrainingConfig(), 0)
    train, held = split_good(dataset, TrainingConfig(train_images=count), 0)
    assert held == apart
    assert train == [s for s in whole if s in train]
    every = {s.category for s in whole}
    for category in every:
        own = [s for s in whole if s.category == category]
        assert sum(s.category == category for s in train) == min(count, len(own))
    more, _ = split_good(dataset, TrainingConfig(train_images=count + 1), 0)
    assert {s.path for s in train} <= {s.path for s in more}
    others = [split_good(dataset, TrainingConfig(train_images=1), seed)[0] for seed in range(8)]
    assert len({tuple(s.path for s in train) for train in others}) > 1


def good_images(count, category="nut", split="train"):
    return [Sample(Path(f"{category}/{i:03}.png"), category, split, "good", 0, None) for i in range(count)]


def by_tens(rows):
    return [row // 10 for row in rows]


def test_groups_are_not_parted():
    samples = good_images(60) + good_images(40, "bolt")
    whole = make_split(samples, TrainingConfig(holdout=0.2), 0, by_tens)
    assert sorted(whole.train + whole.held) == list(range(100))
    assert not whole.folds
    assert {i // 10 for i in whole.held}.isdisjoint(i // 10 for i in whole.train)
    assert [sum(i < 60 for i in whole.held), sum(i >= 60 for i in whole.held)] == [10, 10]
    assert whole == make_split(samples, TrainingConfig(holdout=0.2), 0, by_tens)
    crossed = make_split(samples, TrainingConfig(folds=3), 0, by_tens)
    folds = [crossed.held, *crossed.folds]
    assert crossed.scored == sorted(i for fold in folds for i in fold) == list(range(100))
    assert all(len({i // 10 for i in fold}) * 10 == len(fold) for fold in folds)
    assert sorted(map(len, folds)) == [30, 30, 40]
    assert sorted(crossed.train + crossed.held) == list(range(100))
    assert not whole.parted
    assert not crossed.parted


@pytest.mark.parametrize(("count", "folds"), [(2, 4), (3, 2), (7, 4), (20, 4)])
def test_all_images_in_one_group(count, folds):
    """Near-copies of one image are cut into pieces of neighbours; nothing better can be had."""
    split = make_split(good_images(count), TrainingConfig(folds=folds), 0, lambda rows: [0] * len(rows))
    assert split.scored == sorted(split.train + split.held) == list(range(count))
    assert len(split.folds) == min(count, folds) - 1
    held = make_split(good_images(count), TrainingConfig(holdout=0.2), 0, lambda rows: [0] * len(rows))
    assert len(held.held) == max(1, round(0.2 * count))
    assert len(held.train) == count - len(held.held)
    assert held.parted == split.parted == {0}


def test_when_images_are_held_out():
    one = good_images(1)
    assert make_split(one, TrainingConfig(folds=4), 0, by_tens) == Split([0], [], [], {0: 0})
    assert not make_split(good_images(20), TrainingConfig(holdout=0.0), 0, by_tens).held
    few, many = (make_split(good_images(n), TrainingConfig(folds=4, folds_below=30), 0, list) for n in (29, 30))
    assert (len(few.folds), len(few.held)) == (3, 8)
    assert (many.folds, len(many.held)) == ([], 3)
    own = [*good_images(20), *good_images(5, split="validation")]
    assert make_split(own, TrainingConfig(folds=4), 0, list) == Split(list(range(20)), list(range(20, 25)))
    single = make_split([*good_images(9), *good_images(1, "bolt")], TrainingConfig(folds=4), 0, list)
    assert 9 in single.train  # a category is never held out as a whole
    assert 9 not in single.scored


def test_a_split_is_written_and_read(tmp_path):
    root = tmp_path / "set"
    samples = [replace(sample, path=root / sample.path) for sample in [*good_images(12), *good_images(3, "caf\udce9")]]
    for config in (TrainingConfig(holdout=0.3), TrainingConfig(folds=3)):
        split = make_split(samples, config, 0, by_tens)
        save_split(tmp_path, split, samples, root, root)
        found = recorded(tmp_path, samples, root)
        assert (sorted(found.train), sorted(found.held)) == (sorted(split.train), sorted(split.held))
        assert (found.folds, found.groups) == (split.folds, split.groups)
        more = [*samples, replace(samples[0], path=root / "nut/new.png")]
        assert recorded(tmp_path, more, root) == found  # an image that is new changes nothing
        with pytest.raises(UserError, match=r"000.png: a good image of this run, and not there any more; restore it"):
            recorded(tmp_path, samples[1:], root)
    (tmp_path / "split.json").write_text('{"schema": 1}')
    with pytest.raises(UserError, match=r"split.json: damaged \(KeyError"):
        recorded(tmp_path, samples, root)
    (tmp_path / "split.json").unlink()
    assert recorded(tmp_path, samples, root) is None
