"""Which good images are held out, and which of the others train."""

from dataclasses import replace
from pathlib import Path

import pytest

from vitlite.data import Sample, open_dataset
from vitlite.engine.split import hold_out, split_good
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
