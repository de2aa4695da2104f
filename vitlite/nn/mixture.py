"""The mixture density network of VT-ADL (Bishop, 1994) over the fused likelihood operator."""

from torch import Tensor, nn

from vitlite.kernels import linear_gmm_log_likelihood
from vitlite.nn.portable import operator_backend


class MixtureDensity(nn.Module):
    """log p(y | x) of a mixture of diagonal Gaussians whose parameters are linear in x (VT-ADL, Eq. 4 to 6).

    Weights are the softmax of ``logits(x)``, means ``mean(x)``, deviations softplus of ``std(x)`` plus ``min_std``.
    The (T, K, D) means and deviations are never held: the layers only own the parameters that the operator reads.
    """

    def __init__(self, features: int, dims: int, components: int, min_std: float = 1e-3) -> None:
        super().__init__()
        self.min_std = min_std
        self.logits = nn.Linear(features, components)
        self.mean = nn.Linear(features, components * dims)
        self.std = nn.Linear(features, components * dims)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x (T, features) and y (T, dims), floating point, to the log-likelihood (T,) in nats; exact, not a bound.

        Raises ValueError if the shapes do not fit together.
        """
        layers = (self.logits, self.mean, self.std)
        weights, biases = (layer.weight for layer in layers), (layer.bias for layer in layers)
        backend = operator_backend()
        return linear_gmm_log_likelihood(x, y, *weights, *biases, min_std=self.min_std, backend=backend)
