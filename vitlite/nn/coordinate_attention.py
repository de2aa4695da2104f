"""Coordinate attention (Hou, Zhou and Feng, 2021): channel weights that know the row and the column."""

import torch
from torch import Tensor, nn

from vitlite.nn.batch_norm import BatchNorm2d


class CoordinateAttention(nn.Module):
    """Feature map (B, C, h, w) to one of the same shape, every value scaled by a factor of its row and of its column.

    Means along the rows and along the columns pass one shared convolution to C / 32 channels (at least 8), batch
    norm and hard swish. Then each kind of mean has its own convolution to C channels and a sigmoid.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 32)
        self.squeeze = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), BatchNorm2d(hidden), nn.Hardswish())
        self.of_rows = nn.Conv2d(hidden, channels, 1)
        self.of_columns = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        both = self.squeeze(torch.cat([rows, columns], dim=2))
        rows, columns = both[:, :, :height], both[:, :, height:].transpose(2, 3)
        return x * self.of_rows(rows).sigmoid() * self.of_columns(columns).sigmoid()
