"""Features and their reconstruction, of the methods that have them."""

from types import SimpleNamespace

import pytest
import torch
from method_checks import tiny
from torch.nn import functional as F

from vitlite.errors import UserError
from vitlite.report import rendering


def test_a_method_without_features_is_refused():
    detector = SimpleNamespace(method=tiny("l2cae"), settings=SimpleNamespace(method="l2cae"))
    with pytest.raises(UserError, match="render=True: l2cae reconstructs no features"):
        rendering.renderer(detector)


@pytest.mark.parametrize("name", ["sivt", "dinomaly"])
def test_feature_maps_are_what_the_map_compares(name):
    method = tiny(name).eval()
    size = method.config.image_size
    with torch.no_grad():
        frozen = method.frozen(torch.rand(2, 3, size, size))
        features, output = method.feature_maps(frozen)
        if name == "sivt":
            found = method.smooth(1 - F.cosine_similarity(features, output, dim=1))
            expected = method.parts(frozen)["cosine distance"]
        else:
            groups = (x.unflatten(1, (2, -1)) for x in (features, output))
            found, expected = 1 - F.cosine_similarity(*groups, dim=2), method.distances(frozen)
    torch.testing.assert_close(found, expected)
