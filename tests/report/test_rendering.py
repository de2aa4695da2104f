"""Features rendered as images: what the decoder learns, and what the report shows of it."""

import torch

from vitlite.data import list_images
from vitlite.engine.detector import Detector
from vitlite.report import build, rendering
from vitlite.report.page import render as page_of


def test_features_are_rendered_and_reconstructions_by_the_same_decoder(tiny_run, tiny_data):
    """Closer to the image than the mean image of those that trained is; nothing of the detector changes."""
    detector = Detector(tiny_run, "cpu")
    before, random = detector.digest(), torch.get_rng_state()
    render = rendering.renderer(detector, steps=60)
    assert torch.equal(torch.get_rng_state(), random)
    assert Detector(tiny_run, "cpu").digest() == before
    images, _ = rendering.read(detector, list_images([tiny_data / "weave/train/good"]))
    frozen = detector.method.frozen(images)
    shown = render(frozen)
    assert list(shown) == [rendering.FEATURES, rendering.RECONSTRUCTION]
    assert all(image.shape == images.shape for image in shown.values())
    assert (shown[rendering.FEATURES] - images).abs().mean() < 0.9 * (images.mean(0) - images).abs().mean()
    detector.more_parts = render
    assert list(detector._part_pixels((255 * images[:1]).byte().permute(0, 2, 3, 1).numpy()))[:2] == list(shown)


def test_the_page_shows_both(tiny_run, tiny_data, monkeypatch):
    monkeypatch.setattr(build, "renderer", lambda detector: rendering.renderer(detector, steps=2))
    page = page_of(build.build_report(Detector(tiny_run, "cpu"), data=tiny_data, render=True))
    assert rendering.FEATURES in page
    assert rendering.RECONSTRUCTION in page
    assert "rendered by a small decoder" in page
