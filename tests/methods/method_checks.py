"""What the tests of several methods ask."""

import torch


def assert_trains_and_scores(method):
    """Every parameter has a gradient, and maps and scores have their shapes."""
    size = method.config.image_size
    images = torch.rand(2, 3, size, size)
    method.loss(images)["loss"].backward()
    assert not [n for n, p in method.named_parameters() if p.grad is None]
    maps, scores = method.eval().anomaly(images)
    assert maps.shape == (2, size, size)
    assert scores.shape == (2,)
    assert torch.isfinite(maps).all()
