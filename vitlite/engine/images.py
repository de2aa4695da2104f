"""Picture files to the tensors that methods take."""

import torch

from vitlite.data.loading import pixel_batches


def batches(paths, size, batch_size, device, *, bad=None, keep_original=False, workers=None):
    """Readable pictures of ``paths`` in order, as ``(list of Loaded, float images (B, 3, S, S) in [0, 1])``.

    Unreadable ones are appended to ``bad`` as ``(index, path, reason)``.
    """
    loaded = pixel_batches(paths, size, batch_size, bad=bad, keep_original=keep_original, workers=workers)
    for batch, pixels in loaded:
        yield batch, to_images(pixels, device)


def to_images(pixels, device):
    """A uint8 array of pictures (B, S, S, 3) to float images (B, 3, S, S) in [0, 1] on a device."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device).float() / 255
