"""Cached features, in memory and in a file."""

import pytest
import torch

from vitlite.engine import features
from vitlite.engine.features import FeatureCache
from vitlite.errors import UserError


def test_features_that_do_not_fit_memory_go_to_a_file(tmp_path, monkeypatch):
    values = torch.randn(5, 3, 2)
    for limit in (1000, 10):
        monkeypatch.setattr(features, "MEMORY_LIMIT", limit)
        cache = FeatureCache(5, (3, 2), tmp_path)
        cache.put(0, values)
        assert torch.equal(cache[torch.tensor([4, 0])], values[[4, 0]])
    assert not list(tmp_path.iterdir())


def test_features_in_half_precision_are_read_as_float32(tmp_path, monkeypatch):
    values = 100 * torch.randn(5, 3, 2)
    for limit in (1000, 10):
        monkeypatch.setattr(features, "MEMORY_LIMIT", limit)
        cache = FeatureCache(5, (3, 2), tmp_path, "float16")
        cache.put(0, values)
        assert cache.values.dtype == torch.float16
        assert cache[:].dtype == torch.float32
        torch.testing.assert_close(cache[:], values, rtol=2**-11, atol=0)
    with pytest.raises(UserError, match="half precision"):
        cache.put(2, values[2:] + 1e5)
