"""A contact sheet of what ISSTAD's corruption does to good images: original, corrupted and label, one column each."""

from pathlib import Path

import numpy as np
from PIL import Image

from vitlite.data import open_dataset
from vitlite.errors import UserError
from vitlite.files import atomic, new_file
from vitlite.images.loading import readable_batches
from vitlite.images.scale import Reading
from vitlite.methods.config import TrainingConfig

GAP = 4  # white pixels between the images
SIZE = 224  # side of an image, as the paper trains


def contact_sheet(folder: str | Path, out: str | Path, *, seed: int = 0, count: int = 6) -> int:
    """Write a PNG with three rows and one column for each of ``count`` good images; returns how many there are.

    ``folder`` is a data set or a plain folder of images, of which good training images are taken, spread evenly.
    One in six stays as it is, as in training. Raises UserError: no images, or a path that cannot be written.
    """
    import torch

    from vitlite.engine.features import to_images, with_scale
    from vitlite.nn.corruption import corrupt

    out = new_file(out, ".png")
    samples = open_dataset(folder, "all").train
    paths = [sample.path for sample in samples]
    reading = Reading(with_scale(TrainingConfig(), samples).image_scale)
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]
    pixels = (
        next((batch.pixels for batch in readable_batches(chosen, SIZE, len(chosen), reading)), None) if chosen else None
    )
    if pixels is None:
        raise UserError(f"{folder}: no good images that can be read")
    images = to_images(pixels, torch.device("cpu"))
    corrupted, labels = corrupt(images, generator=torch.Generator().manual_seed(seed))
    rows = [images, corrupted, labels[:, None].expand_as(images)]
    sheet = arrange([(row.permute(0, 2, 3, 1) * 255).round().byte().numpy() for row in rows])
    with atomic(out, "wb") as file:
        Image.fromarray(sheet).save(file, "PNG")
    return len(pixels)


def arrange(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of uint8 images (B, S, S, 3) as one image, with white gaps."""
    padded = [np.pad(row, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255) for row in rows]
    sheet = np.concatenate([np.concatenate([*row], axis=1) for row in padded])
    return np.pad(sheet, ((GAP, 0), (GAP, 0), (0, 0)), constant_values=255)
