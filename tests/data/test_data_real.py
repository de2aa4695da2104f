"""The layouts and readers on real data sets (VITLITE_TEST_DATA); counts as their README states them."""

import pytest

from vitlite import data

COUNTS = {"bottle": (209, 20, 63), "magnetic_tile": (600, 120, 194), "commutator": (244, 103, 52)}


@pytest.mark.parametrize("category", COUNTS)
def test_counts(real_data, category):
    dataset = data.open_dataset(real_data, category, need_test=True)
    good = sum(not sample.label for sample in dataset.test)
    assert (len(dataset.train), good, len(dataset.test) - good) == COUNTS[category]
    assert all((sample.mask is not None) == bool(sample.label) for sample in dataset.test)


def test_all_categories_and_nothing_else(real_data):
    dataset = data.open_dataset(real_data, "all", need_test=True)
    assert set(COUNTS) <= set(dataset.categories)
    assert not {"mnist", "cifar10_jpg"} & set(dataset.categories)
    assert any("mnist/" in note for note in dataset.notes)


def test_messy_masks(real_data):
    report = data.check(real_data, "magnetic_tile")
    assert report.unreadable == report.missing_masks == report.orphan_masks == report.size_mismatches == []
    assert {path.parent.name for path in report.empty_masks} == {"uneven"}
    assert len(report.grey_masks) > 150
    low, high = report.widths["magnetic_tile"]
    assert low < high


def test_repeated_pictures_stay_on_one_side(real_data):
    report = data.check(real_data, "commutator")
    assert report.leaks == []
    assert any({"kos01", "kos26"} == {path.name.split("_")[0] for path in group} for group in report.duplicates)


def test_every_defect_of_bottle_has_a_mask_of_its_size(real_data):
    for sample in data.open_dataset(real_data, "bottle").test[::7]:
        image = data.read_image(sample.path)
        assert image.shape == (512, 512, 3)
        if sample.label:
            mask = data.read_mask(sample.mask)
            assert mask.shape == image.shape[:2]
            assert mask.any()
