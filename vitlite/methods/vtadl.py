"""VT-ADL: vision transformer features, decoded to the image and modelled by a mixture density network.

Mishra et al., "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization", 2021. A transformer
encodes large patches. Their sum is decoded to the image, and a Gaussian mixture network models the encoded patches. A
patch that is unlikely under the mixture is anomalous.

docs/papers.md says what the text leaves open and what was decided.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitlite.kernels import ssim
from vitlite.methods.ablations import AUROC, MVTEC_ONE, ONE_PLOTTED, Row, Table, sweep
from vitlite.methods.base import Stage
from vitlite.methods.config import AUTO, CropConfig, check_transformer
from vitlite.methods.figures import CLASSES, MVTEC
from vitlite.methods.kinds import ImageSize, Switch
from vitlite.methods.reconstruction import SMALL as SMALL_IMAGES
from vitlite.methods.reconstruction import to_network, to_unit
from vitlite.methods.tokens import PIXELS, TokenMethod, check_embedding
from vitlite.nn.augment import KINDS, augment
from vitlite.nn.decoders import LAYERS, VectorDecoder
from vitlite.nn.maps import SmoothUpsample, middle, with_border
from vitlite.nn.mixture import MixtureDensity, PositionMixture
from vitlite.nn.portable import operator_backend
from vitlite.nn.vit import VisionTransformer

RECONSTRUCTION, DENSITY = "reconstruction", "density"  # stages
MOST_NUMBERS = 1 << 28  # of a full covariance, 1 GiB


@dataclass(frozen=True)
class Config(CropConfig):
    """Defaults are the paper's, with the table or section. ``(ours)`` marks what it leaves open."""

    image_size: ImageSize = 512  # V.A
    crop: int = 0  # (ours): V.A has 550 for MVTec AD, and nothing for BTAD
    epochs: int = 400  # Table I
    batch_size: int = 8  # Table I
    optimizer: str = "adam"  # Table I
    lr: float = 1e-4  # Table I
    weight_decay: float = 1e-4  # Table I
    patch: int = 64  # Table I, P
    dim: int = 512  # III, of the reconstruction vector; of the tokens too (the authors' code)
    depth: int = 6  # the authors' code; the paper is silent
    heads: int = 8  # likewise
    mlp_ratio: float = 2.0  # likewise
    embedding: str = PIXELS  # or a backbone (ours)
    weights: str = AUTO  # of the backbone (ours)
    vector: int = 512  # III
    projection: str = "shared"  # position: (ours)
    channels: tuple[int, ...] = (64, 32, 16, 8)  # between the decoder's five layers (ours)
    decoder_side: int = 8  # the authors' code
    # linear: Eq. 4 to 6; position: "the unconditional mixture distribution p(y)", III, of features that have positions
    density: str = "linear"
    covariance: str = "diagonal"  # Eq. 4; full: III
    gaussians: int = 150  # Table I, K; Fig. 4 compares others
    noise: float = 0.2  # IV; 0: V.C
    min_std: float = 1e-3  # (ours)
    augment: str = "none"  # (ours; the paper names none)
    density_epochs: int = 0  # (ours)
    density_lr: float = 0.0  # (ours)
    likelihood_trains: str = "mixture"  # (ours)
    mse_weight: float = 5.0  # IV, lambda 1, of the squared error summed over the colours (Frobenius norm)
    ssim_weight: float = 0.5  # IV, lambda 2
    sigma: float = 0.0  # the paper has none
    compare_maps: Switch = True  # (ours): places differ by much more than defects do
    score: str = "combined"  # V.A: reconstruction and largest NLL; MNIST (V.B): reconstruction; or nll

    needs: ClassVar = CropConfig.needs | {"density_lr": "density_epochs"}
    own_scores: ClassVar = ("combined", "reconstruction", "nll")
    renamed: ClassVar = {"levels": ("places", {"none": "none", "position": "scaled"})}

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """0.1.0 took the mean over the three colours."""
        found = super().upgraded(values)
        if "density" not in found and isinstance(found.get("mse_weight"), float):
            found["mse_weight"] /= 3
        return found

    def check(self) -> None:
        super().check()
        check_transformer(self)
        check_embedding(self)
        self.one_of("augment", KINDS)
        self.one_of("projection", ("shared", "position"))
        self.one_of("likelihood_trains", ("mixture", "all"))
        self.one_of("density", ("linear", "position"))
        self.one_of("covariance", ("diagonal", "full"))
        self.at_least(1, "vector", "decoder_side", "gaussians")
        self.at_least(0, "noise", "sigma", "mse_weight", "ssim_weight", "density_epochs", "density_lr")
        self.above(0, "min_std")
        if self.density_epochs and self.likelihood_trains == "all":
            self.refuse("density_epochs", "must be 0 with likelihood_trains=all")
        if self.covariance == "full":
            numbers = math.prod(self.grid) * self.gaussians * self.dim**2
            if self.density != "position":
                self.refuse("covariance", "needs density=position")
            if numbers > MOST_NUMBERS:
                self.refuse("covariance", f"would have {numbers / MOST_NUMBERS:.1f} GiB; lower gaussians or dim")
        if self.vector % self.decoder_side**2:
            self.refuse("vector", "must be a multiple of decoder_side squared")
        if len(self.channels) != LAYERS - 1 or min(self.channels) < 1:
            self.refuse("channels", f"must be {LAYERS - 1} numbers above 0")
        if isinstance(self.image_size, int) and self.image_size != self.decoder_side << self.doublings:
            self.refuse("image_size", f"not decoder_side={self.decoder_side} times a power of two")

    @property
    def doublings(self) -> int:
        """How often the decoder doubles the side of its map, to come to about as many pixels."""
        return max(0, round(math.log2(self.image_side / self.decoder_side)))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_shape
        return height // self.patch, width // self.patch


PAPER = Config()
# Small enough for two CPU cores. Chosen on synthetic surfaces of other seeds than the default, never on real images:
# small patches that a defect fills, a projection for each position (which keeps the encoded patches about themselves),
# and noise of the size of the features' smaller deviations.
QUICK = replace(
    PAPER,
    image_size="keep,128",
    patch=8,
    dim=64,
    depth=2,
    heads=2,
    projection="position",
    density="position",
    gaussians=8,
    noise=0.0,
    augment="affine",
    density_epochs=80,
    density_lr=1e-2,
    score="auto",
    places="auto",
    compare_maps=False,  # chosen on drawn defects: parts that do not stand still lose more than others gain
    edge="even",
    holdout=0.2,
    steps=1800,
    max_epochs=300,
    lr=1e-3,
    schedule="cosine",
    warmup_epochs=1.0,
)
HYBRID = replace(QUICK, embedding="efficientnet_lite2")
# V.B has the score; what a digit is does not hang on places.
SMALL = replace(
    QUICK,
    **SMALL_IMAGES,
    patch=4,
    density="linear",
    density_epochs=0,
    density_lr=0.0,
    score="reconstruction",
    steps=1500,
)

PRO = ("aupro_30",)
GAUSSIANS = {k: f"K = {k}" for k in (1, 10, 50, 100, 150, 200)}
NOISES = (
    Row("without noise (Table III)", ("noise=0",), {"aupro_30": 80.7}, by_category=MVTEC["vtadl"]),
    Row("with noise N(0, 0.2)", ("noise=0.2",), {"aupro_30": 89.7}),
)
# V.B: "anomaly detection is performed only by using" the reconstruction.
DIGITS = (Row("VT-ADL", ("score=reconstruction", "places=none"), by_category=CLASSES["vtadl"]),)
OURS = ("ours: the paper does not compare", "none")
PLAIN = ("places=none", "score=nll")
DENSITIES = (
    Row("linear in the embedding", ("density=linear", *PLAIN)),
    *(
        Row(f"position, {k} Gaussian{'s' * (k > 1)}", ("density=position", f"gaussians={k}", *PLAIN))
        for k in (1, 2, 4, 8)
    ),
    Row("position, 1 Gaussian, full", ("density=position", "gaussians=1", "covariance=full", *PLAIN)),
)
TRAINS = (
    Row("everything", ("likelihood_trains=all", "density_epochs=0")),
    Row("the mixture alone", ("likelihood_trains=mixture", "density_epochs=0")),
)
ABLATIONS = {
    "oneclass": Table("class", "Table II", "MNIST, one model for each digit", AUROC[:1], DIGITS, by_class=True),
    "gaussians": Table("number of Gaussians", "Fig. 4", ONE_PLOTTED, PRO, sweep("gaussians", GAUSSIANS)),
    "noise": Table("noise on the features, 150 Gaussians", "Section V.C", MVTEC_ONE, PRO, NOISES),
    "density": Table("what the mixture depends on", *OURS, (*AUROC, *PRO), DENSITIES),
    "likelihood": Table("what the likelihood trains", *OURS, (*AUROC, *PRO), TRAINS),
}


class VTADL(TokenMethod):
    """Transformer features, image reconstruction, mixture density map; nothing is pretrained unless tokens are."""

    presets: ClassVar = {"paper": PAPER, "quick": QUICK, "hybrid": HYBRID, "small": SMALL}
    ablations: ClassVar = ABLATIONS
    cache_as = "uint8"  # frozen() gives plain images
    least_deviation = 1.0  # nats
    default_score = "combined"

    config: Config

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights)
        c = config
        shape, places = c.image_shape, math.prod(c.grid)
        encoder = VisionTransformer(shape, c.patch, c.dim, c.depth, c.heads, c.mlp_ratio, class_token=False)
        self.embed(encoder, c.embedding, weights or c.weights)
        tokens = places if c.projection == "position" else 1
        self.project = nn.Linear(tokens * c.dim, c.vector)
        self.decoder = VectorDecoder(c.vector, c.decoder_side, c.doublings, c.channels, shape)
        if c.density == "linear":
            self.mixture: nn.Module = MixtureDensity(c.dim, c.dim, c.gaussians, c.min_std)
        else:
            self.mixture = PositionMixture(places, c.dim, c.gaussians, c.min_std, c.covariance == "full")
        self.to_map = SmoothUpsample(c.grid, shape, c.sigma, c.edge)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        if "deviation" in state_dict:  # as 0.1.0 wrote it
            state_dict = dict(state_dict)
            state_dict["places.level"] = state_dict.pop("level")
            state_dict["places.scale"] = state_dict.pop("deviation") + 1
        return super().load_state_dict(state_dict, *args, **options)

    def stages(self) -> tuple[Stage, ...]:
        """All together, or the reconstruction first and then the mixture."""
        c = self.config
        if not c.density_epochs:
            return super().stages()
        first = Stage(RECONSTRUCTION, c.epochs, ("encoder.", "embedding.", "project.", "decoder."), scores=False)
        option = "density_lr" if c.density_lr else "lr"
        return first, Stage(DENSITY, c.density_epochs, ("mixture.",), c.density_lr, lr_option=option)

    def prepare(self, batches: Iterable[Tensor]) -> None:
        """Start the mixtures of positions from the embeddings of the training images, as far as they are trained."""
        if isinstance(self.mixture, PositionMixture) and self.stage != RECONSTRUCTION:
            self.mixture.start((self.tokens(to_network(batch)) for batch in batches), self.config.noise)

    @property
    def image_score(self) -> str:
        """How the score of an image comes about, in words."""
        reconstruction = (
            f"{self.config.mse_weight:g} MSE + {self.config.ssim_weight:g} (1 - SSIM) of the reconstruction"
        )
        likelihood = "largest negative log-likelihood of a patch"
        parts = {"combined": f"{likelihood} + {reconstruction}", "reconstruction": reconstruction, "nll": likelihood}
        return parts.get(self.score_name) or super().image_score

    @property
    def places_shape(self) -> tuple[int, int]:
        return self.config.grid

    def frozen(self, images: Tensor) -> Tensor:
        """The middle of the images."""
        return middle(images, *self.config.beyond)

    def reconstruct(self, patches: Tensor) -> Tensor:
        """Encoded patches (B, L, dim) to images (B, 3, H, W) in -1..1."""
        summed = patches.flatten(1) if self.config.projection == "position" else patches.sum(1)
        return self.decoder(self.project(summed)).float()

    def reconstruction_errors(self, images: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Per image, each (B,): the squared error in the range -1..1, summed over the colours, mean over the pixels;
        and 1 - SSIM of the same in 0..1, mean over both.
        """
        mse = (images - output).square().sum(1).flatten(1).mean(1)
        similarity = ssim(to_unit(images), to_unit(output), reduction="none", backend=operator_backend())
        return mse, 1 - similarity.flatten(1).mean(1)

    def loss(self, features: Tensor) -> dict[str, Tensor]:
        """Equation 9 over images (B, 3, H, W) in [0, 1]: -LL + 5 MSE + 0.5 (1 - SSIM), LL the mean over patches.

        If the two parts have stages of their own: the part of the stage.
        """
        still = self.stage == DENSITY and self.config.density == "position"  # a place is no longer one if images move
        images = to_network(augment(features, "none" if still else self.config.augment))
        patches = self.tokens(images)
        terms: dict[str, Tensor] = {}
        loss: Any = 0.0
        if self.stage != RECONSTRUCTION:
            terms["nll"] = loss = self.density_loss(patches)
        if self.stage != DENSITY:
            terms["mse"], terms["dssim"] = (
                e.mean() for e in self.reconstruction_errors(images, self.reconstruct(patches))
            )
            loss = loss + self.config.mse_weight * terms["mse"] + self.config.ssim_weight * terms["dssim"]
        return {"loss": loss, **terms}

    def density_loss(self, patches: Tensor) -> Tensor:
        """Equation 8, the mean over encoded patches (B, L, dim).

        ``density=linear``: given the same patches with noise; ``density=position``: of the patches with noise.
        """
        target = patches.float()
        if self.config.likelihood_trains == "mixture":
            target = target.detach()
        noisy = target + self.config.noise * torch.randn_like(target) if self.config.noise else target
        # In float32 whatever the precision: a product of a full covariance is divided by deviations that may be small.
        with torch.autocast(target.device.type, enabled=False):
            return -self.log_likelihood(noisy, target if self.config.density == "linear" else noisy).mean()

    def log_likelihood(self, given: Tensor, target: Tensor) -> Tensor:
        """(B, L) of encoded patches (B, L, dim); ``given`` is what a linear head computes the mixtures from."""
        if self.config.density == "linear":
            return self.mixture(given.flatten(0, 1), target.flatten(0, 1)).unflatten(0, target.shape[:2])
        return self.mixture(target)

    def unlikelihood(self, patches: Tensor) -> Tensor:
        """Negative log-likelihood (B, rows, columns) of encoded patches (B, L, dim), given themselves."""
        patches = patches.float()
        return -self.log_likelihood(patches, patches).unflatten(1, self.config.grid)

    def values(self, features: Tensor) -> Tensor:
        """Negative log-likelihood per patch (V.A)."""
        return self.unlikelihood(self.tokens(to_network(features)))

    def measure(self, features: Tensor) -> tuple[Tensor, Tensor]:
        images = to_network(features)
        patches = self.tokens(images)
        mse, dissimilarity = self.reconstruction_errors(images, self.reconstruct(patches))
        errors = self.config.mse_weight * mse + self.config.ssim_weight * dissimilarity
        return self.unlikelihood(patches), errors

    def parts(self, features: Tensor) -> dict[str, Tensor]:
        """The reconstruction, and the likelihood before places are compared."""
        patches = self.tokens(to_network(features))
        image = to_unit(self.reconstruct(patches)).clamp(0, 1)
        return {"reconstruction": image, "negative log-likelihood": self.maps(self.unlikelihood(patches))}

    def maps(self, values: Tensor) -> Tensor:
        """Bilinear at the input size (V.A); what the network does not see is like the best place."""
        return with_border(self.to_map(values), *self.config.beyond)

    def own_score(self, how: str, values: Tensor, errors: Tensor | None) -> Tensor:
        """The largest negative log-likelihood of a patch, the error of the reconstruction, or both (V.A)."""
        worst = values.flatten(1).amax(1)
        if how == "nll":
            return worst
        assert errors is not None
        return errors + worst if how == "combined" else errors
