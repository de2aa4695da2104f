"""Cached features, in memory and in a file."""

import torch

from vitlite.engine import features
from vitlite.engine.features import FeatureCache


def test_features_that_do_not_fit_memory_go_to_a_file(tmp_path, monkeypatch):
    values = torch.randn(5, 3, 2)
    for limit in (1000, 10):
        monkeypatch.setattr(features, "MEMORY_LIMIT", limit)
        cache = FeatureCache(5, (3, 2), tmp_path)
        cache.put(0, values)
        assert torch.equal(cache[torch.tensor([4, 0])], values[[4, 0]])
    assert not list(tmp_path.iterdir())
