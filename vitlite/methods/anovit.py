"""AnoViT: a vision transformer's patch embeddings decoded back to the image (Lee and Kang, 2022).

The class token is dropped and the other embeddings keep their places as a feature map, so that no fully connected
layer comes between encoder and decoder (Section 3.1).

MNIST and CIFAR-10 are resized to 224 (4.1.1): ``image_size=224``. The preset ``small`` has about their own size.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from vitlite.backbones.transformer_weights import load_vit
from vitlite.methods.ablations import AUROC, MVTEC_ALL, MVTEC_ONE, Row, Table
from vitlite.methods.autoencoder import QUICK_AUTOENCODER, Autoencoder, AutoencoderConfig
from vitlite.methods.figures import MVTEC, with_classes
from vitlite.methods.reconstruction import SMALL as SMALL_IMAGES
from vitlite.methods.tokens import PIXELS
from vitlite.nn.decoders import as_map

ENCODER = "vit_base_patch16_384"  # whose published weights are used
BASE = {"patch": 16, "dim": 768, "depth": 12, "heads": 12, "mlp_ratio": 4.0}  # 4.3, ViT-Base, which they need


@dataclass(frozen=True)
class Config(AutoencoderConfig):
    """Defaults are the paper's, with its sections. ``(ours)`` marks what it leaves open.

    4.3 says 8 heads "as in the existing ViT-Base"; ViT-Base and its weights have 12.
    """

    pretrained: bool = True  # 4.3, ImageNet-21k then 2012; False trains from scratch
    weights: str = "auto"  # of a pretrained encoder, or of the backbone of the embedding
    augment: str = "affine"  # 4.3: random affine, vertical and horizontal flips; their ranges are ours

    def check(self) -> None:
        super().check()
        if self.pretrained and self.embedding != PIXELS:
            self.refuse("embedding", f"pretrained weights need {PIXELS}; or set `pretrained=False`")
        for key, value in BASE.items() if self.pretrained else ():
            if getattr(self, key) != value:
                self.refuse(key, f"pretrained weights need {value}; or set `pretrained=False`")
        if self.pretrained and self.weights == "none":
            self.refuse("weights", "an encoder without weights is `pretrained=False`")

    @property
    def reads_weights(self) -> bool:
        """Whether the encoder has published weights."""
        return self.pretrained


PAPER = Config()
# 14 minutes on two CPU cores. Defects drawn onto good images chose the SSIM in the loss, the filter and so many steps.
QUICK = replace(PAPER, **QUICK_AUTOENCODER, steps=6000, max_epochs=300, pretrained=False, ssim_weight=1.0, sigma=2.0)
HYBRID = replace(QUICK, embedding="efficientnet_lite2", steps=1500)
SMALL = replace(QUICK, **SMALL_IMAGES, patch=4, steps=1500, ssim_weight=0.0, sigma=1.0, score="max")  # Eq. 7

# The paper compares with l2cae only; its figures are those of Table 1, with ImageNet weights.
VIT_BASE = ("patch=16", "dim=768", "depth=12", "heads=12", "embedding=pixels")
IMAGENET = {"image_auroc": 78.0, "pixel_auroc": 83.0}
WEIGHTS = (
    Row("from scratch", ("pretrained=false", *VIT_BASE)),
    Row("ImageNet", ("pretrained=true", *VIT_BASE), IMAGENET, by_category=MVTEC["anovit"]),
)
MODES = (Row("AnoViT", (), {"image_auroc": 73.1, "pixel_auroc": 76.5}, IMAGENET),)
HEADS = tuple(Row(f"{n} heads", ("pretrained=false", f"heads={n}")) for n in (2, 4, 8, 16))
ONE_CLASS = (
    Row("L2-CAE", (), by_category=with_classes("l2cae"), method="l2cae"),
    Row("AnoViT", (), by_category=with_classes("anovit")),
)
ABOUT, OURS = MVTEC_ONE + "; the paper has no row from scratch", "ours: the paper names 8 and does not compare"
EACH = "MNIST, CIFAR-10 and MVTec AD, one model for each class"
ABLATIONS = {
    "oneclass": Table("class", "Tables 1 to 5", EACH, AUROC, ONE_CLASS, by_class=True, baseline="L2-CAE"),
    # One model for all: as SIVT's Table II has it.
    "modes": Table("one model for each category, and one for all", "SIVT, Table II", MVTEC_ALL, AUROC, MODES),
    "weights": Table("weights of the encoder (ViT-B/16)", "Table 1", ABOUT, AUROC, WEIGHTS),
    "heads": Table("attention heads, from scratch", OURS, "none", AUROC, HEADS),
}


class AnoViT(Autoencoder):
    """ViT encoder, six blocks of transposed convolution, L2 loss; the map is the L2 distance per pixel (Eq. 6)."""

    presets: ClassVar = {"paper": PAPER, "quick": QUICK, "hybrid": HYBRID, "small": SMALL}
    ablations: ClassVar = ABLATIONS
    config: Config

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights)
        if config.pretrained and weights != "none":
            load_vit(self.encoder, ENCODER, weights or config.weights)
        self.decoder = config.decoder(most=3)

    def reconstruct(self, target: Tensor) -> Tensor:
        return self.decoder(as_map(self.tokens(target), self.encoder.grid))
