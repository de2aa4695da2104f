"""From coarse per-position anomaly values to a smooth map at input resolution."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """(size, size) float64 matrix of a Gaussian filter cut at 4 sigma with mirrored borders; rows sum to 1.

    The same filter as ``scipy.ndimage.gaussian_filter1d(mode="reflect")``. ``sigma`` 0 gives the identity.
    Raises ValueError for a sigma below 0 or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma={sigma}: must be at least 0 and finite")
    if sigma == 0:
        return torch.eye(size, dtype=torch.float64)
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights = weights / weights.sum()
    # Mirror with the edge pixel repeated: fold every offset back into [0, size) with period 2 * size.
    columns = (torch.arange(size)[:, None] + offsets[None]) % (2 * size)
    columns = torch.where(columns >= size, 2 * size - 1 - columns, columns)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, columns, weights.expand(size, -1).contiguous())


def upsample_matrix(coarse: int, fine: int) -> Tensor:
    """(fine, coarse) float64 matrix of bilinear interpolation along one axis (half-pixel centres)."""
    identity = torch.eye(coarse, dtype=torch.float64)
    return F.interpolate(identity[None], size=fine, mode="linear", align_corners=False)[0].T.contiguous()


class SmoothUpsample(nn.Module):
    """Bilinear upsampling of (B, h, w) values to (B, size, size), then a Gaussian filter of ``sigma`` pixels.

    Both are linear and separable, so one small matrix per axis does them together: ``R x C^T``.
    """

    matrix: Tensor

    def __init__(self, coarse: int, size: int, sigma: float) -> None:
        super().__init__()
        matrix = gaussian_matrix(size, sigma) @ upsample_matrix(coarse, size)
        self.register_buffer("matrix", matrix.float(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return self.matrix @ values @ self.matrix.T
