"""What ssim is: the numpy oracle of the tests, and the eager torch fallback and yardstick.

SSIM (Wang, Bovik, Sheikh and Simoncelli 2004, eq. 13) with population moments under a window that sums to one:

    (2 mean_x mean_y + C1) (2 cov_xy + C2) / ((mean_x^2 + mean_y^2 + C1) (var_x + var_y + C2))

with C1 = (0.01 data_range)^2 and C2 = (0.03 data_range)^2. By definition in [-1, 1]; what rounding brings outside, for
nearly equal images, is brought back.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

K1, K2 = 0.01, 0.03


def window_weights(size: int, sigma: float) -> tuple[float, ...]:
    """Window along one axis, a tuple of ``size`` numbers that sum to 1: a Gaussian, or equal weights for sigma 0."""
    offsets = range(-(size // 2), size - size // 2)
    weights = [math.exp(-((offset / sigma) ** 2) / 2) if sigma > 0 else 1.0 for offset in offsets]
    whole = sum(weights)
    return tuple([weight / whole for weight in weights])


def ssim_numpy(
    x: np.ndarray, y: np.ndarray, window_size: int = 11, sigma: float = 1.5, data_range: float = 1.0, same: bool = True
) -> np.ndarray:
    """The map (B, C, H, W), or smaller by window_size - 1 without ``same``, in float64, window by window."""
    x, y = (np.asarray(a, dtype=np.float64) for a in (x, y))
    weights = np.array(window_weights(window_size, sigma))
    weights = weights[:, None] * weights

    def mean(image: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(image, weights.shape, axis=(2, 3))
        return np.einsum("bchwij,ij->bchw", windows, weights)

    if same:
        pad = [(0, 0), (0, 0), (window_size // 2,) * 2, (window_size // 2,) * 2]
        x, y = np.pad(x, pad), np.pad(y, pad)
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return np.clip(luminance * (2 * covariance + c2) / (variance_x + variance_y + c2), -1, 1)


def ssim_torch(
    x: Tensor, y: Tensor, window_size: int = 11, sigma: float = 1.5, data_range: float = 1.0, same: bool = True
) -> Tensor:
    """The same in eager torch, in float32 for half-precision images, with two one-dimensional convolutions."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), y.float()
    # Not torch.tensor, which the exporter to ONNX cannot look into.
    weights = torch.cat([x.new_full((1,), float(weight)) for weight in window_weights(window_size, sigma)])
    channels = 5 * x.shape[1]
    down = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    along = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    pad = window_size // 2 if same else 0
    if data_range != 1:
        # Constants that are not small, since exporters to ONNX drop a `+ c` of up to 1e-8.
        x, y = x / data_range, y / data_range
    c1, c2 = K1**2, K2**2
    # All moments in one convolution with a group for each channel: several times as fast as five convolutions.
    stacked = torch.cat([x, y, x * x, y * y, x * y], dim=1)
    moments = F.conv2d(stacked, down, padding=(pad, 0), groups=channels)
    moments = F.conv2d(moments, along, padding=(0, pad), groups=channels)
    mean_x, mean_y, square_x, square_y, product = moments.chunk(5, dim=1)
    xx, yy, xy = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    contrast = (2 * (product - xy) + c2) / ((square_x - xx) + (square_y - yy) + c2)
    return ((2 * xy + c1) / (xx + yy + c1) * contrast).clamp(-1, 1)
