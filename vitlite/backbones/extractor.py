"""FeatureExtractor: images in, one feature map per requested stride out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitlite.backbones.architecture import Architecture, Convention
from vitlite.backbones.layers import ConvUnit, FrozenNorm
from vitlite.errors import UserError


class FeatureExtractor(nn.Module):
    """A frozen backbone; make one with `vitlite.backbones.create`.

    name; strides and channels of the maps, in order; mean and std, buffers (1, 3, 1, 1) for images in [0, 1];
    weights_source, a line for people. The state dict holds the convention of the checkpoint too (padding, epsilon,
    normalisation), so an extractor created with weights="none" gives the same maps once it has loaded it.
    """

    def __init__(self, architecture: Architecture, strides: Sequence[int] | None = None):
        super().__init__()
        self.name = architecture.name
        self.strides = _checked(architecture, strides)
        built = [stage for stage in architecture.stages if stage.stride <= self.strides[-1]]
        self.channels = tuple(stage.channels for stage in built if stage.stride in self.strides)
        self._returned = tuple(stage.stride in self.strides for stage in built)
        self.weights_source = "not loaded"
        # Built without memory and without drawing from the global generator; the weights are filled in afterwards.
        with torch.device("meta"):
            self.stages = nn.ModuleList(stage.build() for stage in built)
        self.to_empty(device="cpu")
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))
        self.set_convention(architecture.convention(None, ""))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of images.

        images: (B, 3, H, W), floating point in [0, 1]; normalised here.
        Returns one map per stride: (B, channels[i], about H / strides[i], about W / strides[i]).
        Raises ValueError for another shape or dtype.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating point (B, 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}"
            )
        x, maps = self._normalised(images), []
        for stage, returned in zip(self.stages, self._returned):
            x = stage(x)
            if returned:
                maps.append(x)
        return tuple(maps)

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stays in evaluation mode whatever the model around it does."""
        return super().train(False)

    def fused(self) -> "FeatureExtractor":
        """A copy for inference with the same maps up to rounding: see `vitlite.backbones.fused`."""
        from vitlite.backbones.fused import FusedExtractor

        return FusedExtractor(self)

    def set_convention(self, convention: Convention) -> None:
        """Padding, epsilon and input normalisation of the checkpoint whose weights are, or will be, in place."""
        self._set_padding(convention.same, convention.eps)
        self.mean.copy_(torch.tensor(convention.mean, dtype=torch.float64).view(1, 3, 1, 1))
        self.std.copy_(torch.tensor(convention.std, dtype=torch.float64).view(1, 3, 1, 1))

    def _set_padding(self, same: bool, eps: float) -> None:
        self._same, self._eps = same, eps
        for module in self.modules():
            if isinstance(module, ConvUnit):
                module.same = same
            elif isinstance(module, FrozenNorm):
                module.eps = eps

    def get_extra_state(self) -> Tensor:
        # A tensor, so that any loader with weights_only=True and any tensor-only format can hold it.
        return torch.tensor([float(self._same), self._eps], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        same, eps = state.tolist()
        self._set_padding(bool(same), eps)

    def extra_repr(self) -> str:
        maps = ", ".join(f"{s}: {c}" for s, c in zip(self.strides, self.channels))
        return f"{self.name}, channels by stride {{{maps}}}, weights: {self.weights_source}"


def _checked(architecture: Architecture, strides: Sequence[int] | None) -> tuple[int, ...]:
    """The requested strides as a tuple, or a UserError that says which ones there are."""
    if strides is None:
        return architecture.strides
    known = [stage.stride for stage in architecture.stages]
    strides = tuple(strides)
    if not strides or any(s not in known for s in strides) or list(strides) != sorted(set(strides)):
        raise UserError(
            f"strides {strides} do not fit {architecture.name}: give some of {', '.join(map(str, known))}, ascending"
        )
    return strides
