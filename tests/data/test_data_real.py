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


def test_repeated_images_stay_on_one_side(real_data):
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


MNIST = {  # digit -> (training, test) images, as counted by the data set's authors
    "0": (5923, 980),
    "1": (6742, 1135),
    "8": (5851, 974),
}


@pytest.mark.parametrize("digit", MNIST)
def test_mnist(real_data, digit):
    dataset = data.open_dataset(real_data / "mnist", digit, need_test=True)
    train, good = MNIST[digit]
    assert (dataset.layout, len(dataset.train), len(dataset.test)) == ("mnist", train, 10_000)
    assert sum(not sample.label for sample in dataset.test) == good
    assert {sample.defect for sample in dataset.test} == {"good", *"0123456789"} - {digit}
    image = data.read_image(dataset.train[0].path)
    assert image.shape == (28, 28, 3)
    assert image.max() > 200


def test_a_one_is_a_narrow_stroke_and_a_zero_is_not(real_data):
    """Images and labels belong together: mean ink of the digits as anybody would draw them."""
    ink = {}
    for digit in "01":
        samples = data.open_dataset(real_data / "mnist", digit).train[:200]
        ink[digit] = sum(data.read_image(sample.path).mean() for sample in samples) / 200
    assert ink["0"] > 1.8 * ink["1"]


def test_cifar_as_folders(real_data):
    dataset = data.open_dataset(real_data / "cifar10_jpg", "cat", need_test=True)
    assert (dataset.layout, len(dataset.train), len(dataset.test)) == ("classes", 400, 1000)
    assert sum(not sample.label for sample in dataset.test) == 100
    assert len({sample.defect for sample in dataset.test}) == 10
    assert data.read_image(dataset.test[0].path).shape == (32, 32, 3)


def test_report_on_folders_of_classes(real_data):
    report = data.check(real_data / "cifar10_jpg")
    assert report.unreadable == []
    assert {kind: n for kind, n in report.counts["cifar10_jpg"]["train"].items() if n != 400} == {}
    assert sum(report.counts["cifar10_jpg"]["test"].values()) == 1000


SHARES = {
    "bottle": (0.5, 0.75),
    "screw": (0.08, 0.3),
    "tire": (0.1, 0.4),
    "commutator": (1, 1),
    "magnetic_tile": (1, 1),
}


@pytest.mark.parametrize("category", SHARES)
def test_the_part_is_told_from_a_plain_background(real_data, category):
    samples = data.open_dataset(real_data, category).train[::20]
    shares = sorted(data.estimate_part(data.read_image(sample.path)).mean() for sample in samples)
    low, high = SHARES[category]
    assert low <= shares[len(shares) // 10] <= shares[-1 - len(shares) // 10] <= high
