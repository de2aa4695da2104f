"""Square windows of images: drawn at random for training, on a regular grid and put together again for scoring."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.images.tiles import Size, sides


def random_windows(images: Tensor, size: int, count: int) -> Tensor:
    """``count`` windows of ``size`` pixels at random places of each image: (B, C, H, W) to (B * count, C, w, w)."""
    images = images.repeat_interleave(count, 0)
    # A product of uniform numbers, not randint: it takes the same draws for any number of places.
    drawn = torch.rand(2, len(images), device=images.device)
    top, left = ((place * (side - size + 1)).long() for place, side in zip(drawn, images.shape[2:]))
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

    def __init__(self, size: Size, window: int, stride: int) -> None:
        super().__init__()
        self.size, self.window, self.stride = sides(size), window, stride
        rows, columns = (-(-(side - window) // stride) + 1 for side in self.size)
        self.number = rows * columns  # of windows
        self.padded = (rows - 1) * stride + window, (columns - 1) * stride + window
        counts = torch.ones(1, window * window, self.number)
        self.register_buffer("counts", self._fold(counts), persistent=False)

    def cut(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B * windows, C, w, w)."""
        below, right = (padded - side for padded, side in zip(self.padded, self.size))
        if below or right:
            images = F.pad(images, (0, right, 0, below), mode="reflect")
        columns = F.unfold(images, self.window, stride=self.stride)
        return columns.transpose(1, 2).reshape(-1, images.shape[1], self.window, self.window)

    def merge(self, values: Tensor) -> Tensor:
        """Values (B * windows, w, w) to (B, H, W); if windows overlap, their mean."""
        columns = values.reshape(-1, self.number, self.window**2).transpose(1, 2)
        merged = self._fold(columns) / self.counts
        return merged[:, 0, : self.size[0], : self.size[1]]

    def _fold(self, columns: Tensor) -> Tensor:
        return F.fold(columns, self.padded, self.window, stride=self.stride)
