"""Features as images: SIVT's Figure 6. A small convolutional decoder, trained on good images, renders them.

It learns to make an image from its features. What it makes of a method's reconstruction of them shows what the method
takes the image for: a defect that is gone there was not reconstructed.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vitlite.engine.detector import Detector
from vitlite.engine.features import to_images
from vitlite.engine.split import good_split
from vitlite.errors import UserError
from vitlite.files import counted
from vitlite.images.loading import readable_batches
from vitlite.methods.base import Method
from vitlite.nn.decoders import TransposedDecoder
from vitlite.progress import Progress

log = logging.getLogger(__name__)

IMAGES = 96  # good images that train the decoder, at most
STEPS, BATCH, LR = 400, 8, 2e-3
CHANNELS, STRIDES = (128, 64, 32, 3), (1, 2, 2, 2)  # of the decoder's blocks
FEATURES, RECONSTRUCTION = "features, rendered", "reconstruction, rendered"


def renderer(detector: Detector, *, steps: int = STEPS) -> Callable[[Tensor], dict[str, Tensor]]:
    """Train a decoder on the good images of a run; returns what makes images (B, 3, H, W) of ``frozen`` features.

    Raises ``UserError`` if the run's method reconstructs no features, or its data of training is missing.
    """
    method = detector.method
    if type(method).feature_maps is Method.feature_maps:
        raise UserError(f"`render=True`: {detector.settings.method} reconstructs no features; leave it out")
    if getattr(method.config, "crop", 0):
        raise UserError("`render=True`: not with a crop, of which the features do not show the border")
    _, trained, _ = good_split(detector.settings, detector.run)
    paths = [sample.path for sample in trained[:: -(-len(trained) // IMAGES)]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images, features = read(detector, paths)
        decoder = TransposedDecoder(
            (features.shape[1], *CHANNELS), STRIDES, (images.shape[2], images.shape[3]), "batch"
        )
        fit(decoder.to(detector.device), features, images, steps)

    @torch.no_grad()
    def render(frozen: Tensor) -> dict[str, Tensor]:
        pairs = zip((FEATURES, RECONSTRUCTION), method.feature_maps(frozen))
        return {name: (decoder(maps.float()) + 1) / 2 for name, maps in pairs}

    return render


@torch.no_grad()
def read(detector: Detector, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Images (n, 3, H, W) in [0, 1] as the network sees them, and their features (n, C, h, w).

    Of an image that is seen as tiles, the middle one.
    """
    images, features = [], []
    view = detector.view
    for found in readable_batches(paths, view, BATCH, detector.reading):
        for loaded, pixels in zip(found.images, found.pixels):
            places = view.places(pixels.shape[0], pixels.shape[1], loaded.seen_inside)
            part = to_images(view.cut(pixels, places[len(places) // 2])[None], detector.device)
            images.append(part)
            features.append(detector.method.feature_maps(detector.method.frozen(part))[0].float())
    if not images:
        raise UserError("`render=True`: none of the good images of training can be read")
    return torch.cat(images), torch.cat(features)


def fit(decoder: nn.Module, features: Tensor, images: Tensor, steps: int) -> None:
    """Train the decoder to make the images of their features: the least absolute error, Adam, a falling rate."""
    optimizer = torch.optim.Adam(decoder.parameters(), LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    log.info("rendering: a decoder of %s trains for %d steps", counted(len(images), "good image"), steps)
    decoder.train()
    with Progress("rendering", steps) as progress:
        for _ in range(steps):
            chosen = torch.randint(len(images), (BATCH,), device=images.device)
            loss = ((decoder(features[chosen]) + 1) / 2 - images[chosen]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.step(1, f"error {float(loss.detach()):.3f}")
    decoder.eval()
