"""Square windows of pictures: drawn at random for training, on a regular grid and put together again for scoring."""

import torch
from torch import nn
from torch.nn import functional as F


def random_windows(images, size, count):
    """``count`` windows of ``size`` pixels at random places of each picture: (B, C, S, S) to (B * count, C, w, w)."""
    images = images.repeat_interleave(count, 0)
    spaces = images.shape[2] - size + 1
    # A product of uniform numbers, not randint: the same draws whatever the number of places.
    top, left = (torch.rand(2, len(images), device=images.device) * spaces).long().unbind()
    steps = torch.arange(size, device=images.device)
    rows, columns = (top[:, None] + steps)[:, None, :, None], (left[:, None] + steps)[:, None, None, :]
    each = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[each, channels, rows, columns]


class WindowGrid(nn.Module):
    """Windows of ``window`` pixels every ``stride`` pixels over pictures of ``size``, the last ones at the border.

    ``cut`` and ``merge`` are for pictures padded by mirroring to where the grid ends.
    """

    def __init__(self, size, window, stride):
        super().__init__()
        self.size, self.window, self.stride = size, window, stride
        self.side = -(-(size - window) // stride) + 1  # windows along an axis
        self.padded = (self.side - 1) * stride + window
        counts = torch.ones(1, window * window, self.side**2)
        self.register_buffer("counts", self._fold(counts), persistent=False)

    def cut(self, images):
        """(B, C, S, S) to (B * windows, C, w, w)."""
        extra = self.padded - self.size
        if extra:
            images = F.pad(images, (0, extra, 0, extra), mode="reflect")
        columns = F.unfold(images, self.window, stride=self.stride)
        return columns.transpose(1, 2).reshape(-1, images.shape[1], self.window, self.window)

    def merge(self, values):
        """Values (B * windows, w, w) to their mean wherever windows overlap, (B, S, S)."""
        columns = values.reshape(-1, self.side**2, self.window**2).transpose(1, 2)
        merged = self._fold(columns) / self.counts
        return merged[:, 0, : self.size, : self.size]

    def _fold(self, columns):
        return F.fold(columns, self.padded, self.window, stride=self.stride)
