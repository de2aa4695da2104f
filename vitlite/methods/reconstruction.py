"""What the methods share that reconstruct an image and call anomalous what they cannot: range, map and score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from vitlite.images.tiles import Size, as_size, sides
from vitlite.kernels import ssim
from vitlite.methods.base import Method
from vitlite.methods.config import TrainingConfig
from vitlite.methods.kinds import ImageSize
from vitlite.nn.augment import KINDS, augment
from vitlite.nn.maps import SmoothUpsample
from vitlite.nn.portable import operator_backend


@dataclass(frozen=True)
class ReconstructionConfig(TrainingConfig):
    """The settings that these methods share, with the values that AnoViT's, MemCA's and L2-CAE's papers have in common.

    ``(ours)`` marks what a paper leaves open.
    """

    image_size: ImageSize = 384  # AnoViT 4.1.2 (MNIST and CIFAR-10 are resized to 224, 4.1.1), MemCA 4.2
    epochs: int = 200  # MemCA 4.2, Bergmann et al. 4.2; AnoViT (ours)
    batch_size: int = 8  # MemCA 4.2; the others (ours)
    optimizer: str = "adam"  # MemCA 4.2, Bergmann et al. 4.2; AnoViT (ours)
    lr: float = 2e-4  # likewise
    weight_decay: float = 0.0  # (ours)
    augment: str = "none"
    ssim_weight: float = 0.0  # lambda of L2 + lambda (1 - SSIM): MemCA Eq. 13, and VT-ADL's AE MSE+SSIM; AnoViT: 0
    ssim_window: int = 11  # of a Gaussian window (ours)
    ssim_edge: str = "mirror"  # (ours): zeros beyond the edge are alike in every two images, which hides defects
    map: str = "l2"  # AnoViT Eq. 6
    sigma: float = 4.0  # (ours): the papers give no width
    score: str = "max"  # AnoViT Eq. 7; MemCA (ours)

    needs: ClassVar = TrainingConfig.needs | {"ssim_edge": "map=ssim|loss"}

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Runs from before ``ssim_edge`` have their thresholds for maps with zeros beyond the edge."""
        return {"ssim_edge": "zero"} | super().upgraded(values)

    def check(self) -> None:
        super().check()
        self.one_of("augment", KINDS)
        self.one_of("ssim_edge", ("mirror", "zero"))
        self.one_of("map", ("l2", "ssim", "loss"))
        self.at_least(0, "sigma", "ssim_weight")
        if self.ssim_window < 1 or self.ssim_window % 2 == 0:
            self.refuse("ssim_window", "must be an odd number of pixels")
        if self.map != "l2" and self.ssim_edge == "mirror" and self.ssim_window // 2 >= min(sides(self.seen)):
            self.refuse("ssim_window", f"larger than what the network sees, {self.seen} pixels; or set ssim_edge=zero")

    @property
    def seen(self) -> Size:
        """What the network sees at a time, in pixels: the whole image."""
        return as_size(self.image_shape)


# What the ``quick`` presets share, for two CPU cores.
QUICK: dict[str, Any] = {
    "image_size": "keep,128",  # as many pixels as 128 x 128
    "lr": 1e-3,
    "schedule": "cosine",
    "warmup_epochs": 1.0,
    "clip_norm": 1.0,
    "augment": "flip",
    "score": "auto",
    "places": "auto",
    "compare_maps": "auto",
    "edge": "even",
    "holdout": 0.2,
}
# What the ``small`` presets change in ``quick``, for images as small as those of MNIST and CIFAR-10. They are whole
# objects, of which a flip may be another class, and every place differs from image to image.
SMALL: dict[str, Any] = {"image_size": 32, "batch_size": 32, "augment": "none", "places": "none", "compare_maps": False}


class Reconstruction(Method):
    """Base of the methods whose features are the images themselves.

    An image in [0, 1] comes to the network as 2 x - 1, in [-1, 1]: the range of the tanh that ends every decoder, and
    the normalisation (mean and deviation 0.5) that the published ViT-B/16 weights at 384 were trained with.
    """

    cache_as = "uint8"
    config: ReconstructionConfig

    def __init__(self, config: ReconstructionConfig, weights: str | None = None) -> None:
        super().__init__(config, weights)
        self.smooth = SmoothUpsample(config.image_shape, config.image_shape, config.sigma, config.edge)

    def reconstruct(self, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to their reconstructions, same shape and range, float32."""
        raise NotImplementedError

    def residual(self, target: Tensor, output: Tensor) -> Tensor:
        """Anomaly of every pixel before smoothing (B, H, W), as ``config.map`` says."""
        c = self.config
        if c.map == "l2":
            return (target - output).square().sum(1).sqrt()
        structure = self.dissimilarity(target, output)
        return structure if c.map == "ssim" else (target - output).square().mean(1) + c.ssim_weight * structure

    def dissimilarity(self, target: Tensor, output: Tensor) -> Tensor:
        """1 - SSIM at each pixel (B, H, W), mean over the colours."""
        window, backend = self.config.ssim_window, operator_backend()
        images, padding = [to_unit(target), to_unit(output)], "same"
        if self.config.ssim_edge == "mirror":
            images, padding = [F.pad(image, (window // 2,) * 4, "reflect") for image in images], "valid"
        return (1 - ssim(*images, window_size=window, padding=padding, reduction="none", backend=backend)).mean(1)

    def targets(self, features: Tensor) -> Tensor:
        """The images of a training batch, changed at random as ``config.augment`` says, in [-1, 1]."""
        return to_network(augment(features.float(), self.config.augment))

    def scored(self, target: Tensor) -> Tensor:
        """The parts of the images that are reconstructed for scoring. Default: the images."""
        return target

    def joined(self, values: Tensor) -> Tensor:
        """Values at the pixels of what ``scored`` gives to those of whole images (B, H, W). Default: themselves."""
        return values

    def whole(self, output: Tensor) -> Tensor:
        """Reconstructions of what ``scored`` gives to images (B, 3, H, W). Default: themselves."""
        return output

    def parts(self, features: Tensor) -> dict[str, Tensor]:
        """The reconstruction, and both terms of a map that has two, smoothed."""
        target = self.scored(to_network(features.float()))
        output = self.reconstruct(target)
        found = {"reconstruction": to_unit(self.whole(output)).clamp(0, 1)}
        if self.config.map == "loss":
            found["squared error"] = self.smooth(self.joined((target - output).square().mean(1)))
            found["1 - SSIM"] = self.smooth(self.joined(self.dissimilarity(target, output)))
        return found

    def loss(self, features: Tensor) -> dict[str, Tensor]:
        """L2 + lambda (1 - SSIM), MemCA's Equation 13."""
        target = self.targets(features)
        return self.terms(target, self.reconstruct(target))

    def terms(self, target: Tensor, output: Tensor) -> dict[str, Tensor]:
        """The loss of images and their reconstructions, and its parts if there is more than one.

        L2 is the mean over all values; the SSIM's constants are meant for [0, 1], so it is taken there.
        """
        c, l2 = self.config, (target - output).square().mean()
        if not c.ssim_weight:
            return {"loss": l2}
        structure = 1 - ssim(to_unit(target), to_unit(output), window_size=c.ssim_window)
        return {"loss": l2 + c.ssim_weight * structure, "l2": l2, "ssim": structure}

    def values(self, features: Tensor) -> Tensor:
        target = self.scored(to_network(features.float()))
        return self.smooth(self.joined(self.residual(target, self.reconstruct(target))))


def to_network(images: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return 2 * images - 1


def to_unit(images: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (images + 1) / 2
