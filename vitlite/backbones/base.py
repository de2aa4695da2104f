"""What a backbone is: the contract of every frozen network that turns images into feature maps."""

from typing import Self

from torch import Tensor, nn

_RANDOM = "random (seed"  # how such a text begins


def random_source(seed: int) -> str:
    """The ``weights_source`` of weights that were drawn with a seed."""
    return f"{_RANDOM} {seed})"


def is_random(source: str | None) -> bool:
    """Whether a ``weights_source`` says that the weights were drawn; None, of what has no weights, does not."""
    return source is not None and source.startswith(_RANDOM)


class Backbone(nn.Module):
    """A frozen network: images in, one feature map per stride out. `vitlite.backbones.create` makes one.

    name: as `create` knows it.
    strides, channels: of the maps, in order.
    weights_source: where the weights came from, in words.
    """

    name: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    weights_source: str

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of images; normalisation is part of it.

        images: (B, 3, H, W), floating point in [0, 1].
        Returns a map per stride: (B, channels[i], about H / strides[i], about W / strides[i]).
        """
        raise NotImplementedError

    def fused(self) -> "Backbone":
        """A version for inference alone with the same maps up to rounding, but faster; by default the backbone itself.

        An exported file holds this version. While a graph is traced it uses torch's own operators alone.
        """
        return self

    def train(self, mode: bool = True) -> Self:
        """A backbone stays in evaluation mode, whatever the model around it does."""
        return super().train(False)


def check_images(images: Tensor) -> None:
    """Raise ValueError unless these are images that a backbone takes."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point (B, 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}"
        )
