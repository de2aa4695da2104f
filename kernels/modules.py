"""The operators as modules, which own the parameters that an operator reads."""

import torch
from torch import Tensor, nn

from .gmm.linear import linear_gmm_log_likelihood
from .memory.op import memory_read
from .ssim.op import ssim


class SSIM(nn.Module):
    """Structural similarity as a module: see :func:`ssim`, whose arguments it keeps. A loss is ``1 - SSIM()(x, y)``.

    Args:
        window_size: odd length of the window along each axis.
        window: "gaussian" with deviation ``sigma``, or "uniform".
        sigma: deviation of the Gaussian in pixels.
        data_range: difference between the largest and the smallest value that an image can have.
        padding: "same" or "valid".
        reduction: "mean", "sum" or "none".
        backend: as for the function.
    """

    def __init__(
        self,
        window_size: int = 11,
        window: str = "gaussian",
        sigma: float = 1.5,
        data_range: float = 1.0,
        padding: str = "same",
        reduction: str = "mean",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.window_size, self.window, self.sigma, self.data_range = window_size, window, sigma, data_range
        self.padding, self.reduction, self.backend = padding, reduction, backend

    def extra_repr(self) -> str:
        """What ``repr`` shows in its brackets."""
        return f"window_size={self.window_size}, window={self.window!r}, sigma={self.sigma}, padding={self.padding!r}"

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (B, C, H, W) and others of the same shape to a value () or, without a reduction, the map (B, C, H, W).

        Raises ValueError, which names the argument, for a wrong shape, dtype or option.
        """
        return ssim(
            x,
            y,
            window_size=self.window_size,
            window=self.window,
            sigma=self.sigma,
            data_range=self.data_range,
            padding=self.padding,
            reduction=self.reduction,
            backend=self.backend,
        )


class WithBackend(nn.Module):
    """A module that calls an operator."""

    backend: str

    def chosen_backend(self) -> str:
        """``backend`` of the call; a subclass may decide anew each time."""
        return self.backend


class MemoryRead(WithBackend):
    """A memory of normal patterns, and what it makes of each token (Gong et al. 2019; MemCA, Eq. 7 to 10).

    Its parameter ``items`` (count, channels) starts as that of the published memory autoencoder: uniform within
    1 / sqrt(channels). If shrinkage removes all weights of a token, the result is zeros, with entropy 0.

    Args:
        count: number of items.
        channels: length of an item, and of a token.
        threshold: weights at or below it become 0; None: 1 / count.
        temperature: what the cosine similarities are multiplied by before the softmax.
        backend: as for :func:`memory_read`.
    """

    def __init__(
        self, count: int, channels: int, threshold: float | None = None, temperature: float = 1.0, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.threshold, self.temperature, self.backend = threshold, temperature, backend
        self.items = nn.Parameter(torch.empty(count, channels))
        nn.init.uniform_(self.items, -(channels**-0.5), channels**-0.5)

    def extra_repr(self) -> str:
        """What ``repr`` shows in its brackets."""
        count, channels = self.items.shape
        return f"{count}, {channels}, threshold={self.threshold}, temperature={self.temperature}"

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (..., channels) to what the memory knows of each, in that shape, and the entropy of its weights (...).

        Raises ValueError, which names the argument, for a wrong shape or dtype.
        """
        flat = tokens.reshape(-1, tokens.shape[-1])
        output, entropy = memory_read(
            flat, self.items, threshold=self.threshold, temperature=self.temperature, backend=self.chosen_backend()
        )
        return output.reshape(tokens.shape), entropy.reshape(tokens.shape[:-1])


class GaussianMixtureHead(WithBackend):
    """log p(y | x) of a mixture of diagonal Gaussians with parameters linear in x (Bishop 1994; VT-ADL, Eq. 4 to 6).

    Weights are the softmax of ``logits(x)``, means ``mean(x)``, deviations softplus of ``std(x)`` plus ``min_std``.
    The (T, K, D) means and deviations are never held: the layers only own the parameters that the operator reads.

    Args:
        features: length of x.
        dims: length of y, D.
        components: number of Gaussians, K.
        min_std: added to every deviation, above 0.
        backend: as for :func:`linear_gmm_log_likelihood`.
    """

    def __init__(self, features: int, dims: int, components: int, min_std: float = 1e-3, backend: str = "auto") -> None:
        super().__init__()
        self.min_std, self.backend = min_std, backend
        self.logits = nn.Linear(features, components)
        self.mean = nn.Linear(features, components * dims)
        self.std = nn.Linear(features, components * dims)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x (T, features) and y (T, dims), floating point, to the log-likelihood (T,) in nats; exact, not a bound.

        Raises ValueError, which names the argument, if the shapes do not fit together.
        """
        layers = self.logits, self.mean, self.std
        weights, biases = (layer.weight for layer in layers), (layer.bias for layer in layers)
        return linear_gmm_log_likelihood(x, y, *weights, *biases, min_std=self.min_std, backend=self.chosen_backend())
