"""What an image's score takes from its map, and places compared with those of good images, against numpy."""

import numpy as np
import pytest
import torch

from vitlite.methods.config import SCORES
from vitlite.nn.score import Places, PlaceStatistics, score_of

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(4, 4), (32, 20)])
def test_scores(size):
    maps = RNG.normal(size=(3, *size)).astype(np.float32)
    pixels = np.sort(maps.reshape(3, -1).astype(np.float64), axis=1)
    count = pixels.shape[1]
    expected = {
        "max": pixels[:, -1],
        "top1": pixels[:, -max(1, round(count / 100)) :].mean(1),
        "top10": pixels[:, -max(1, round(count / 10)) :].mean(1),
        "mean": pixels.mean(1),
        "std": pixels.std(1),
        "rms": np.sqrt(((pixels - np.minimum(pixels.mean(1, keepdims=True), 0)) ** 2).mean(1)),
    }
    assert set(expected) == set(SCORES)
    for how, want in expected.items():
        np.testing.assert_allclose(score_of(torch.from_numpy(maps), how).numpy(), want, rtol=1e-5, atol=1e-6)


def test_rms_is_the_deviation_below_the_level_of_good_images_and_sees_what_is_above_it():
    maps = torch.from_numpy(RNG.normal(size=(2, 30, 40)).astype(np.float32))
    maps -= maps.mean((1, 2), keepdim=True) + 0.1
    assert torch.allclose(score_of(maps, "rms"), score_of(maps, "std"), rtol=1e-5)
    everywhere = maps + 5
    assert torch.allclose(score_of(everywhere, "std"), score_of(maps, "std"), rtol=1e-4)
    assert (score_of(everywhere, "rms") > 4 * score_of(maps, "rms")).all()


@pytest.mark.parametrize(("least", "added"), [(None, None), (1.0, 1.0)])
def test_places(least, added):
    """A place where good images are high and vary counts less than one where they do not."""
    good = RNG.normal(5, 1, (40, 6, 4)) * np.linspace(1, 9, 4)
    values = good[:3] + 2
    mean, deviation = good.mean(0), good.std(0)
    floor = deviation.mean() if added is None else added
    expected = {"none": values, "mean": values - mean, "scaled": (values - mean) / (deviation + floor)}
    expected["absolute"] = np.abs(expected["scaled"])
    for how, want in expected.items():
        places = Places(how, (6, 4), least)
        same = places(torch.from_numpy(values))
        np.testing.assert_allclose(same.numpy(), values)  # nothing is learned yet
        statistics = PlaceStatistics((6, 4), least)
        for part in torch.from_numpy(good).split(16):
            statistics.add(part)
        places.learn(statistics)
        np.testing.assert_allclose(places(torch.from_numpy(values)).numpy(), want, rtol=1e-5, atol=1e-5)
        again = Places(how, (6, 4), least)
        again.load_state_dict(places.state_dict())
        np.testing.assert_array_equal(again(torch.from_numpy(values)), places(torch.from_numpy(values)))


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
@pytest.mark.parametrize("least", [None, 0.5])
def test_statistics_without_an_image(least, shape):
    good = torch.from_numpy(RNG.normal(3, 1, (9, *shape)))
    whole = PlaceStatistics(shape, least)
    whole.add(good)
    means, scales = whole.without(good)
    for i in range(len(good)):
        rest = PlaceStatistics(shape, least)
        rest.add(torch.cat([good[:i], good[i + 1 :]]))
        mean, scale = rest.of_all()
        torch.testing.assert_close(means[i], mean)
        torch.testing.assert_close(scales[i], scale)
        assert not torch.allclose(mean, whole.of_all()[0])


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4), (3, 5, 4)])  # of one value at a place, and of several
@pytest.mark.parametrize("groups", [[[0], [1, 4, 5], [2, 8]], [[0], [1, 4, 5]]])
@pytest.mark.parametrize("least", [None, 0.5])
def test_statistics_without_groups(least, groups, shape):
    good = torch.from_numpy(RNG.normal(3, 1, (9, *shape)))
    whole = PlaceStatistics(shape, least)
    whole.add(good)
    parts = [PlaceStatistics(shape, least) for _ in groups]
    for part, group in zip(parts, groups):
        part.add(good[group])
    means, scales = whole.without_parts(parts)
    for i, group in enumerate(groups):
        rest = PlaceStatistics(shape, least)
        rest.add(good[[row for row in range(9) if row not in group]])
        mean, scale = rest.of_all()
        torch.testing.assert_close(means[i], mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(scales[i], scale, rtol=1e-6, atol=0)
    alone = whole.without(good[:1])
    assert torch.equal(means[0], alone[0][0])
    assert torch.equal(scales[0], alone[1][0])
