"""Square windows of images: drawn at random for training, on a regular grid and put together again for scoring."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def random_windows(images: Tensor, size: int, count: int) -> Tensor:
    """``count`` windows of ``size`` pixels at random places of each image: (B, C, S, S) to (B * count, C, w, w)."""
    images = images.repeat_interleave(count, 0)
    spaces = images.shape[2] - size + 1
    # A product of uniform numbers, not randint: it takes the same draws for any number of places.
    top, left = (torch.rand(2, len(images), device=images.device) * spaces).long().unbind()
    steps = torch.arange(size, device=images.device)
    rows, columns = (top[:, None] + steps)[:, None, :, None], (left[:, None] + steps)[:, None, None, :]
    each = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[each, channels, rows, columns]


class WindowGrid(nn.Module):
    """Windows of ``window`` pixels every ``stride`` pixels over images of ``size``.

    ``cut`` pads the images by mirroring to the end of the grid; ``merge`` cuts the padding off.
    """

    counts: Tensor

    def __init__(self, size: int, window: int, stride: int) -> None:
        super().__init__()
        self.size, self.window, self.stride = size, window, stride
        self.side = -(-(size - window) // stride) + 1  # windows along an axis
        self.padded = (self.side - 1) * stride + window
        counts = torch.ones(1, window * window, self.side**2)
        self.register_buffer("counts", self._fold(counts), persistent=False)

    def cut(self, images: Tensor) -> Tensor:
        """(B, C, S, S) to (B * windows, C, w, w)."""
        extra = self.padded - self.size
        if extra:
            images = F.pad(images, (0, extra, 0, extra), mode="reflect")
        columns = F.unfold(images, self.window, stride=self.stride)
        return columns.transpose(1, 2).reshape(-1, images.shape[1], self.window, self.window)

    def merge(self, values: Tensor) -> Tensor:
        """Values (B * windows, w, w) to (B, S, S); if windows overlap, their mean."""
        columns = values.reshape(-1, self.side**2, self.window**2).transpose(1, 2)
        merged = self._fold(columns) / self.counts
        return merged[:, 0, : self.size, : self.size]

    def _fold(self, columns: Tensor) -> Tensor:
        return F.fold(columns, self.padded, self.window, stride=self.stride)
