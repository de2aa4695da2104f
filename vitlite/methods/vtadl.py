"""VT-ADL: vision transformer features, decoded to the image and modelled by a mixture density network.

Mishra et al., "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization", 2021. Large patches
are encoded by a transformer, summed into one vector and decoded to the image; a Gaussian mixture network models the
encoded patches. A patch that is unlikely under the mixture is anomalous.

What the text leaves open, and what was decided:

- p(y | x) of Eq. 4: x is "the image embedding", with noise in training ("before feeding it to the GMM model"); y is
  taken to be the same embedding without the noise. With y = x the best linear mean is the identity and every
  deviation its smallest value, for any patch at all; with noise on x alone the network must know where normal patches
  lie to undo it. ``noise = 0`` is that degenerate network, the "without noise" of Section V.C.
- What the likelihood trains: Eq. 8 fits "the parameters theta of the Gaussian estimation network", while the
  reconstruction "forces the encoder to catch features that are relevant"; so its gradient stops at the embedding.
  ``likelihood_trains = "all"`` lets it into the encoder, where it outweighs both reconstruction terms by orders of
  magnitude and is largest if all patches have the same embedding: on synthetic surfaces the deviation of the features
  fell from 0.6 to 0.01 within 400 steps, and the squared error stayed at 0.089 where it otherwise came to 0.025.
- The features move while the encoder learns, and a mixture that follows them for a few hundred steps ends far from
  where a fresh one gets on the finished features (image AUROC 0.64 and 0.97 on a synthetic gear). ``density_epochs``
  trains it after the rest, in a stage of its own; at 0, the paper's, all is trained together.
- The likelihood of good patches differs from place to place: plain ones are far likelier than those with an edge, and a
  defect on a plain one stays below a good edge. The paper's map is the likelihood as it is; trained for minutes, that
  is near chance on MVTec's bottle, with patches a sixteenth or, as the paper's, an eighth of the picture wide (image
  AUROC 0.61 and 0.60). ``levels = "position"`` takes off the mean of the good training pictures at the same place and
  divides by their deviation and one nat: 0.98 from the same network.
- N(0, 0.2): 0.2 is the deviation. Noise far above the features' own deviations leaves x without information (the
  density is then that of y alone, with a diagonal covariance), noise far below them teaches nothing.
- "Reshaped and projected into a reconstruction vector" (III) and "summed into a reconstruction vector" (Fig. 2): the
  sum of the patches, each projected by one learned matrix (``projection = "shared"``), or by a matrix for each
  position, which is a projection of all patches side by side (``"position"``).
- "Full covariance" (III) contradicts Eq. 4, which has one sigma_k per component output: diagonal.
- The encoder has no class token: all that the method reads are the patches. The squared error is a mean over
  the colours too.
- Pictures are scaled to the input size; the paper's crop of MVTec AD (550 to 512) would leave the borders unscored.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from vitlite.kernels import ssim
from vitlite.methods.base import Method, Stage, TrainingConfig, check_choice, check_least
from vitlite.nn.augment import KINDS, augment
from vitlite.nn.batch_norm import BatchNorm2d
from vitlite.nn.maps import SmoothUpsample
from vitlite.nn.mixture import MixtureDensity
from vitlite.nn.portable import operator_backend
from vitlite.nn.vit import VisionTransformer

RECONSTRUCTION, DENSITY = "reconstruction", "density"  # stages
LAYERS = 5  # transposed convolutions, III


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Defaults are the paper's, with the table or section. ``(ours)`` marks what it leaves open."""

    image_size: int = 512  # V.A
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
    vector: int = 512  # III, length of the reconstruction vector
    projection: str = "shared"  # of the patches to that vector: shared | position (ours)
    channels: tuple = (64, 32, 16, 8)  # of the decoder between its five layers (ours)
    decoder_side: int = 8  # the vector is folded to this height and width (the authors' code)
    gaussians: int = 150  # Table I, K; Fig. 4 compares others
    noise: float = 0.2  # IV, deviation of the noise on the features in training; 0: none (V.C)
    min_std: float = 1e-3  # added to every deviation of the mixture (ours)
    augment: str = "none"  # training pictures: none | flip | affine (ours; the paper names none)
    density_epochs: int = 0  # of the mixture, after the rest and not together with it (ours); 0: together
    likelihood_trains: str = "mixture"  # what the likelihood's gradient reaches: mixture | all (ours)
    mse_weight: float = 5.0  # IV, lambda 1
    ssim_weight: float = 0.5  # IV, lambda 2
    levels: str = "none"  # what a patch's likelihood is compared with: none | position (ours)
    sigma: float = 0.0  # pixels, Gaussian filter of the map; the paper has none
    score: str = "combined"  # V.A: reconstruction and largest NLL; MNIST (V.B): reconstruction; or nll


PAPER = Config()
# Small enough for two CPU cores. Chosen on synthetic surfaces of other seeds than the default, never on real images:
# small patches that a defect fills, a projection for each position (which keeps the encoded patches about themselves),
# and noise of the size of the features' smaller deviations.
QUICK = replace(
    PAPER,
    image_size=128,
    patch=8,
    dim=64,
    depth=2,
    heads=2,
    projection="position",
    gaussians=16,
    noise=0.01,
    augment="affine",
    density_epochs=200,
    levels="position",
    steps=1800,
    lr=1e-3,
    schedule="cosine",
    warmup_epochs=1.0,
)


class Decoder(nn.Module):
    """The reconstruction vector (B, V) to an image (B, 3, S, S) in -1..1: five transposed convolutions (III).

    Batch norm and ReLU between them, tanh last. ``side`` is the height and width that the vector is folded to.
    """

    def __init__(self, vector, side, size, channels):
        super().__init__()
        self.shape = (vector // side**2, side, side)
        widths = (self.shape[0], *channels, 3)
        layers = []
        for stride, before, after in zip(decoder_strides(size, side), widths, widths[1:]):
            # Kernels of twice the stride cover every pixel equally often, so they draw no checkerboard.
            kernel, padding = (2 * stride, stride // 2) if stride > 1 else (3, 1)
            layers += [nn.ConvTranspose2d(before, after, kernel, stride, padding), BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-2], nn.Tanh())

    def forward(self, vector):
        return self.layers(vector.unflatten(1, self.shape))


def decoder_strides(size, side):
    """Strides of the five layers, powers of two and larger ones first; ValueError where no such five exist."""
    doublings = (size // side).bit_length() - 1
    if size != side << max(doublings, 0) or doublings < 0:
        raise ValueError(f"image_size={size}: not decoder_side={side} times a power of two")
    return [2 ** (doublings // LAYERS + (i < doublings % LAYERS)) for i in range(LAYERS)]


class VTADL(Method):
    """Transformer features, image reconstruction, mixture density map."""

    Config = Config
    presets: ClassVar = {"paper": PAPER, "quick": QUICK}
    cache_as = "uint8"  # frozen() gives plain pictures

    def __init__(self, config, weights=None):
        """``weights`` is there for the contract alone: nothing is pretrained."""
        super().__init__(config)
        check(config)
        c = config
        self.encoder = VisionTransformer(c.image_size, c.patch, c.dim, c.depth, c.heads, c.mlp_ratio, class_token=False)
        self.side = c.image_size // c.patch
        tokens = self.side**2 if c.projection == "position" else 1
        self.project = nn.Linear(tokens * c.dim, c.vector)
        self.decoder = Decoder(c.vector, c.decoder_side, c.image_size, c.channels)
        self.mixture = MixtureDensity(c.dim, c.dim, c.gaussians, c.min_std)
        self.to_map = SmoothUpsample(self.side, c.image_size, c.sigma)
        if c.levels == "position":
            self.register_buffer("level", torch.zeros(self.side, self.side))
            self.register_buffer("deviation", torch.zeros(self.side, self.side))

    def stages(self):
        """All together, or the reconstruction first and then the mixture."""
        c = self.config
        if not c.density_epochs:
            return super().stages()
        first = Stage(RECONSTRUCTION, c.epochs, ("encoder.", "project.", "decoder."))
        return first, Stage(DENSITY, c.density_epochs, ("mixture.",))

    @property
    def image_score(self):
        """How the score of a picture comes about, in words."""
        reconstruction = (
            f"{self.config.mse_weight:g} MSE + {self.config.ssim_weight:g} (1 - SSIM) of the reconstruction"
        )
        likelihood = "largest negative log-likelihood of a patch"
        parts = {"combined": f"{likelihood} + {reconstruction}", "reconstruction": reconstruction, "nll": likelihood}
        return parts[self.config.score]

    def reconstruct(self, patches):
        """Encoded patches (B, L, dim) to images (B, 3, S, S) in -1..1."""
        summed = patches.flatten(1) if self.config.projection == "position" else patches.sum(1)
        return self.decoder(self.project(summed)).float()

    def reconstruction_errors(self, images, output):
        """Per picture, each (B,): mean squared error in the range -1..1, and 1 - SSIM of the same in 0..1."""
        mse = (images - output).square().flatten(1).mean(1)
        similarity = ssim((images + 1) / 2, (output + 1) / 2, reduction="none", backend=operator_backend())
        return mse, 1 - similarity.flatten(1).mean(1)

    def loss(self, features):
        """Equation 9 over images (B, 3, S, S) in [0, 1]: -LL + 5 MSE + 0.5 (1 - SSIM), LL the mean over patches.

        Where the two parts have stages of their own, the stage's part of it.
        """
        images = 2 * augment(features, self.config.augment) - 1
        patches = self.encoder(images)
        terms, loss = {}, 0.0
        if self.stage != RECONSTRUCTION:
            terms["nll"] = loss = self.density_loss(patches)
        if self.stage != DENSITY:
            terms["mse"], terms["dssim"] = (
                e.mean() for e in self.reconstruction_errors(images, self.reconstruct(patches))
            )
            loss = loss + self.config.mse_weight * terms["mse"] + self.config.ssim_weight * terms["dssim"]
        return {"loss": loss, **terms}

    def density_loss(self, patches):
        """Equation 8, the mean over encoded patches (B, L, dim), given the same patches with noise."""
        target = patches.flatten(0, 1).float()
        if self.config.likelihood_trains == "mixture":
            target = target.detach()
        given = target + self.config.noise * torch.randn_like(target) if self.config.noise else target
        return -self.mixture(given, target).mean()

    def finish(self, batches):
        """Mean and deviation at each place of good pictures' negative log-likelihood, where they are asked for."""
        if self.config.levels == "position":
            nll = torch.cat([self.unlikelihood(self.encoder(2 * features - 1)) for features in batches])
            self.level.copy_(nll.mean(0))
            self.deviation.copy_(nll.std(0, correction=0))

    def unlikelihood(self, patches):
        """Negative log-likelihood (B, side, side) of encoded patches (B, L, dim), given themselves."""
        flat = patches.flatten(0, 1).float()
        return -self.mixture(flat, flat).unflatten(0, (-1, self.side, self.side))

    @torch.no_grad()
    def anomaly_from(self, features):
        """Negative log-likelihood per patch, bilinear at the input size (V.A); the score as ``config.score`` says."""
        images = 2 * features - 1
        patches = self.encoder(images)
        nll = self.unlikelihood(patches)
        if self.config.levels == "position":
            nll = (nll - self.level) / (self.deviation + 1)
        maps, score = self.to_map(nll), nll.flatten(1).amax(1)
        if self.config.score != "nll":
            mse, dissimilarity = self.reconstruction_errors(images, self.reconstruct(patches))
            reconstruction = self.config.mse_weight * mse + self.config.ssim_weight * dissimilarity
            score = reconstruction + (score if self.config.score == "combined" else 0)
        return maps, score


def check(config):
    """Values that no option parser can refuse by type alone; ValueError names the key."""
    choices = {
        "augment": KINDS,
        "projection": ("shared", "position"),
        "likelihood_trains": ("mixture", "all"),
        "score": ("combined", "reconstruction", "nll"),
        "levels": ("none", "position"),
    }
    for key, allowed in choices.items():
        check_choice(config, key, allowed)
    check_least(config, 1, "patch", "dim", "depth", "heads", "vector", "decoder_side", "gaussians")
    check_least(config, 0, "noise", "sigma", "mse_weight", "ssim_weight", "density_epochs")
    for key in ("min_std", "mlp_ratio"):
        if not 0 < getattr(config, key) < float("inf"):
            raise ValueError(f"{key}={getattr(config, key)}: must be above 0")
    if config.density_epochs and config.likelihood_trains == "all":
        raise ValueError(f"density_epochs={config.density_epochs}: must be 0 with likelihood_trains=all")
    if config.image_size % config.patch:
        raise ValueError(f"patch={config.patch}: does not divide image_size={config.image_size}")
    if config.dim % config.heads:
        raise ValueError(f"heads={config.heads}: does not divide dim={config.dim}")
    if config.vector % config.decoder_side**2:
        raise ValueError(f"vector={config.vector}: must be a multiple of decoder_side squared")
    if len(config.channels) != LAYERS - 1 or min(config.channels) < 1:
        raise ValueError(f"channels={','.join(map(str, config.channels))}: must be {LAYERS - 1} numbers above 0")
    decoder_strides(config.image_size, config.decoder_side)
