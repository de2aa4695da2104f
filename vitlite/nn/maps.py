"""From coarse per-position anomaly values to a smooth map at input resolution."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.images.tiles import Size, sides


def gaussian_matrix(size: int, sigma: float, radius: int | None = None) -> Tensor:
    """(size, size) float64 matrix of a Gaussian filter with mirrored borders; rows sum to 1.

    It is cut beyond ``radius``, by default 4 sigma: the same filter as ``scipy.ndimage.gaussian_filter1d`` with
    ``mode="reflect"``. ``sigma`` 0 gives the identity.
    Raises ValueError for a sigma below 0 or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma={sigma}: must be at least 0 and finite")
    if sigma == 0:
        return torch.eye(size, dtype=torch.float64)
    offsets, weights = gaussian(sigma, int(4 * sigma + 0.5) if radius is None else radius)
    # Mirror with the edge pixel repeated: fold every offset back into [0, size) with period 2 * size.
    columns = (torch.arange(size)[:, None] + offsets[None]) % (2 * size)
    columns = torch.where(columns >= size, 2 * size - 1 - columns, columns)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, columns, weights.expand(size, -1).contiguous())


def gaussian(sigma: float, radius: int) -> tuple[Tensor, Tensor]:
    """Offsets from ``-radius`` to ``radius``, int64, and their weights, float64, of the sum 1."""
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2) if sigma else (offsets == 0).double()
    return offsets, weights / weights.sum()


def upsample_matrix(coarse: int, fine: int, corners: bool = False) -> Tensor:
    """(fine, coarse) float64 matrix of bilinear interpolation along one axis.

    Values lie at the centres of pixels or, with ``corners``, the outer ones on the outer ones.
    """
    identity = torch.eye(coarse, dtype=torch.float64)
    return F.interpolate(identity[None], size=fine, mode="linear", align_corners=corners)[0].T.contiguous()


def middle(images: Tensor, before: int, after: int) -> Tensor:
    """Images (B, 3, H, W) without so many pixels at their edges; the inverse of :func:`with_border`."""
    height, width = images.shape[-2:]
    return images[..., before : height - after, before : width - after]


def with_border(maps: Tensor, before: int, after: int) -> Tensor:
    """Maps (B, H, W) of the middle of images, with so many pixels of their lowest value around them."""
    if not (before or after):
        return maps
    least = maps.amin((1, 2), keepdim=True)
    return F.pad(maps - least, [before, after] * 2) + least


def noise_of(weights: Tensor) -> Tensor:
    """(rows,) variance of what each row of a linear filter makes of white noise of variance 1."""
    return weights.square().sum(1)


def endless_noise(coarse: int, fine: int, sigma: float) -> Tensor:
    """(fine,) float64 variance that white noise of variance 1 would have if the coarse values went on beyond the edge.

    Interpolation and filter are those of ``upsample_matrix`` and ``gaussian_matrix``.
    """
    offsets, weights = gaussian(sigma, int(4 * sigma + 0.5))
    weights = weights.expand(fine, -1)
    source = (torch.arange(fine)[:, None] + offsets.double()[None] + 0.5) * (coarse / fine) - 0.5
    left = source.floor().long()
    part = source - left
    first = int(left.min())
    matrix = torch.zeros(fine, int(left.max()) - first + 2, dtype=torch.float64)
    matrix.scatter_add_(1, left - first, weights * (1 - part))
    matrix.scatter_add_(1, left - first + 1, weights * part)
    return noise_of(matrix)


class SmoothUpsample(nn.Module):
    """Bilinear upsampling of values (B, h, w) to (B, H, W), then a Gaussian filter of ``sigma`` pixels.

    ``coarse`` and ``fine`` are the sizes.

    Both are linear and separable, so one small matrix per axis does them together: ``R x C^T``.

    Mirrored values count twice at the edge, so noise has twice its variance there, and four times in a corner: the
    highest value of a good image lies at the edge too often. ``edge="even"`` draws what is near the edge towards the
    mean of the map, as far as gives noise the variance that it has inside; ``"mirror"`` leaves it.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, coarse: Size, fine: Size, sigma: float, edge: str = "mirror") -> None:
        super().__init__()
        self.even = edge == "even"
        for name, before, after in zip(("rows", "columns"), sides(coarse), sides(fine)):
            self.register_buffer(name, self._along(before, after, sigma).float(), persistent=False)

    def _along(self, coarse: int, fine: int, sigma: float) -> Tensor:
        """The matrix of one axis, float64 (fine, coarse)."""
        matrix = gaussian_matrix(fine, sigma) @ upsample_matrix(coarse, fine)
        if self.even:
            matrix *= (endless_noise(coarse, fine, sigma) / noise_of(matrix)).sqrt().clamp_max(1)[:, None]
        return matrix

    def forward(self, values: Tensor) -> Tensor:
        if not self.even:
            return self.rows @ values @ self.columns.T
        level = values.mean((-2, -1), keepdim=True)
        return self.rows @ (values - level) @ self.columns.T + level
