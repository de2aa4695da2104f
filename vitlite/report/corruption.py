"""A contact sheet of what ISSTAD's corruption does to good pictures: original, corrupted and label, one column each."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vitlite.data import open_dataset
from vitlite.engine.features import to_images
from vitlite.errors import UserError
from vitlite.files import atomic
from vitlite.images.loading import readable_batches
from vitlite.nn.corruption import corrupt

GAP = 4  # white pixels between the pictures
SIZE = 224  # of a picture, as the paper trains


def contact_sheet(folder, out, *, seed=0, count=6, size=SIZE):
    """Write a PNG with three rows and one column for each of ``count`` good pictures; returns how many there are.

    ``folder`` is a data set or a plain folder of pictures, of which good training images are taken, spread evenly.
    One in six stays as it is, as in training. Raises UserError: no pictures, or a path that cannot be written.
    """
    out = Path(out)
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        reason = f"{out.parent} is not a folder" if out.suffix.lower() == ".png" else "give a path that ends with .png"
        raise UserError(f"--out {out}: {reason}")
    paths = [sample.path for sample in open_dataset(folder, "all").train]
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]
    pixels = next((batch.pixels for batch in readable_batches(chosen, size, len(chosen))), None) if chosen else None
    if pixels is None:
        raise UserError(f"{folder}: no good pictures that can be read")
    images = to_images(pixels, "cpu")
    corrupted, labels = corrupt(images, generator=torch.Generator().manual_seed(seed))
    rows = [images, corrupted, labels[:, None].expand_as(images)]
    sheet = arrange([(row.permute(0, 2, 3, 1) * 255).round().byte().numpy() for row in rows])
    with atomic(out, "wb") as file:
        Image.fromarray(sheet).save(file, "PNG")
    return len(pixels)


def arrange(rows):
    """Rows of uint8 pictures (B, S, S, 3) as one picture, with white gaps."""
    size = rows[0].shape[1] + GAP
    sheet = np.full((len(rows) * size + GAP, len(rows[0]) * size + GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = GAP + i * size, GAP + j * size
            sheet[top : top + size - GAP, left : left + size - GAP] = picture
    return sheet
