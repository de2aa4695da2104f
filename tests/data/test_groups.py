"""Groups of images that are nearly the same."""

import logging

import numpy as np
import pytest

from vitlite.data.groups import groups_of, leaving, named, similar, united
from vitlite.data.index import Sample
from vitlite.errors import UserError

RNG = np.random.default_rng(0)


def alike(numbers):
    """The sets of indices with one number."""
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in np.unique(numbers)}


def test_near_copies_are_found_among_images_of_one_part():
    """What all images share counts for nothing, and neither does a change of contrast."""
    part = RNG.normal(0, 20, 400)
    own = RNG.normal(0, 1, (6, 400))
    images = [part + own[i] for i in range(6)]
    images += [part + 0.9 * own[2] + 0.1 * RNG.normal(0, 1, 400), part + own[4], part + 1.5 * own[2]]
    numbers = similar(np.array(images, np.float32))
    assert alike(numbers) == {frozenset(s) for s in ({0}, {1}, {2, 6, 8}, {3}, {4, 7}, {5})}
    assert sorted(set(numbers)) == list(range(6))


def test_what_either_of_two_numberings_joins():
    assert united([0, 1, 2, 2, 3, 4], [5, 5, 6, 7, 7, 8]) == [0, 0, 1, 1, 1, 2]
    assert united([3, 3, 3]) == [0, 0, 0]


def test_groups_of_images_of_several_categories(tmp_path, caplog):
    """Near-copies of one category, and files with the same bytes of any, unless a name says what belongs together."""
    names, own = ["a1", "a2", "a3", "a4", "b1", "b2", "b3", "b4"], RNG.normal(0, 1, (8, 400)).astype(np.float32)
    own[[1, 4]] = own[0] + 0.1 * own[[1, 4]]
    paths = [tmp_path / f"{name}.png" for name in names]
    for path, content in zip(paths, "01233567"):
        path.write_text(content)
    samples = [Sample(path, path.name[0], "train", "good", 0, None) for path in paths]
    assert groups_of(samples, own.copy(), "") == [0, 0, 1, 2, 2, 3, 4, 5]
    assert groups_of(samples, own.copy(), r"part_\d") == [0, 0, 1, 2, 2, 3, 4, 5]  # in no name
    assert groups_of(samples, None, r"\d") == [0, 1, 2, 0, 0, 1, 2, 0]
    assert not caplog.messages
    with caplog.at_level(logging.INFO):
        assert groups_of(samples, None, "") == [0, 1, 2, 3, 3, 4, 5, 6]
    assert "8 images are too many to be compared" in caplog.text


def test_a_time_lapse_stays_together():
    steps = [RNG.normal(0, 1, 600) for _ in range(4)]
    frames = [steps[i // 5] + 0.3 * RNG.normal(0, 1, 600) for i in range(20)]
    assert alike(similar(np.array(frames, np.float32))) == {frozenset(range(5 * i, 5 * i + 5)) for i in range(4)}


def test_a_few_parts_with_many_images_each():
    parts = RNG.normal(0, 1, (4, 600))
    images = [parts[i // 40] + 0.6 * RNG.normal(0, 1, 600) for i in range(160)]
    assert alike(similar(np.array(images, np.float32))) == {frozenset(range(40 * i, 40 * i + 40)) for i in range(4)}


@pytest.mark.parametrize("count", [24, 300])
def test_parts_at_any_angle_are_no_group(count):
    """Two components make up most of the differences, so that many pairs correlate, and names say nothing of it."""
    angle = RNG.uniform(0, 2 * np.pi, count)
    turned = np.stack([np.cos(angle), np.sin(angle)], 1) @ RNG.normal(0, 1, (2, 400))
    images = (turned + 0.3 * RNG.normal(0, 1, (count, 400))).astype(np.float32)
    images[7] = images[3] + 0.02 * RNG.normal(0, 1, 400)  # a copy is found all the same
    together = [group for group in alike(similar(images)) if len(group) > 1]
    assert max(map(len, together)) <= 4
    assert sum(map(len, together)) <= 0.2 * count + 2
    assert any({3, 7} <= group for group in together)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_and_equal_images(count):
    numbers = similar(np.ones((count, 10), np.float32))
    assert numbers.shape == (count,)
    assert numbers.min() == 0


def test_what_leaves_together(caplog):
    assert leaving([None, 0, 1, 0, 2, None, 2, 2]) == [[1, 3], [4, 6, 7]]
    assert leaving([0, 1, 2]) == leaving([]) == []
    assert leaving([7, 7, 7, None, None, 8]) == [[0, 1, 2]]
    assert caplog.messages == []
    # With two images left, each is compared with all others: two have no deviation to speak of.
    assert leaving([7, 7, 7, 7, 8, 8]) == [[4, 5]]
    (line,) = caplog.messages
    assert line.startswith("groups: 4 of the 6 good images that set the threshold are one group")
    assert leaving([7, 7]) == []


def test_groups_by_name(caplog):
    names = ["part_07/a.png", "part_07/b.png", "part_12/a.png", "loose.png", "other.png"]
    assert alike(named(names, "part_([0-9]+)")) == {frozenset(s) for s in ({0, 1}, {2}, {3}, {4})}
    assert caplog.messages == [
        f"groups=part_([0-9]+): not found in 2 names of 5, such as {names[3]}; each such image is its own group"
    ]
    assert alike(named(names, "[a-z]+.png")) == {frozenset(s) for s in ({0, 2}, {1}, {3}, {4})}
    with pytest.raises(UserError, match=r"groups=piece: found in none of the 5 names, such as part_07/a.png"):
        named(names, "piece")
