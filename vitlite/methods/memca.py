"""MemCA: a ViT autoencoder with a memory module and coordinate attention (Sensors 2024, 24, 2440).

The memory stands after the encoder and lets only what it remembers of normal patches pass; coordinate attention stands
between the memory and the decoder. Without both it is the base network of the ablation (Table 6).
"""

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from vitlite.methods.ablations import AUROC, MVTEC_ONE, Row, Table, sweep
from vitlite.methods.autoencoder import QUICK_AUTOENCODER, Autoencoder, AutoencoderConfig
from vitlite.methods.figures import MVTEC
from vitlite.methods.reconstruction import SMALL as SMALL_IMAGES
from vitlite.nn.coordinate_attention import CoordinateAttention
from vitlite.nn.decoders import as_map
from vitlite.nn.memory import MemoryModule

BLOCK = 3  # layers of a decoder's block: transposed convolution, norm, ReLU


@dataclass(frozen=True)
class Config(AutoencoderConfig):
    """Defaults are the paper's, with its sections. ``(ours)`` marks what it leaves open."""

    heads: int = 8  # 4.2
    memory: bool = True  # Table 6, M
    coordinate_attention: bool = True  # Table 6, CA
    attention_after: str = "memory"  # 3.3, and Table 6's text, which says that other places give other results
    items: int = 500  # (ours)
    temperature: float = 1.0  # Eq. 8
    norm: str = "batch"  # 3.4: "normalizes small batches of data"
    ssim_weight: float = 1.0  # lambda of Eq. 13 (ours); 3.5 says "block-based" and cites the usual SSIM loss
    entropy_weight: float = 0.001  # 4.2

    needs: ClassVar = (
        AutoencoderConfig.needs
        | dict.fromkeys(("items", "temperature", "entropy_weight"), "memory")
        | {"attention_after": "coordinate_attention"}
    )

    def check(self) -> None:
        super().check()
        if self.items < 2:
            self.refuse("items", "a memory needs at least 2")
        self.one_of("attention_after", ("memory", "encoder", "decoder"))
        self.above(0, "temperature")
        self.at_least(0, "entropy_weight")


PAPER = Config()
# Small enough for two CPU cores. The map is made of the losses, of which the paper's introduction makes the score, and
# was chosen on synthetic surfaces. Defects drawn onto good images of bottle prefer l2 (docs/choices.md).
QUICK = replace(PAPER, **QUICK_AUTOENCODER, steps=2400, max_epochs=300, temperature=10.0, map="loss", sigma=2.0)
HYBRID = replace(QUICK, embedding="efficientnet_lite2", steps=800)
SMALL = replace(QUICK, **SMALL_IMAGES, patch=4, map="l2", sigma=1.0, score="max", steps=800)

COLUMNS = (*AUROC, "aupro_30")
ROWS = tuple(
    Row(
        label,
        (f"memory={memory}", f"coordinate_attention={attention}"),
        dict(zip(COLUMNS, figures)),
        by_category=MVTEC["memca"] if label == "Base + M + CA" else {},
    )
    for label, memory, attention, *figures in (
        ("Base", "false", "false", 82.2, 83.8, 79.6),
        ("Base + M", "true", "false", 85.7, 91.8, 90.5),
        ("Base + CA", "false", "true", 84.5, 86.4, 85.7),
        ("Base + M + CA", "true", "true", 91.2, 93.0, 92.3),
    )
)
# 4.2: "grid search for hyperparameter optimization", without figures.
TEMPERATURES, ITEMS, ENTROPIES = (1, 5, 10, 20), (100, 500, 2000), (0, 0.0002, 0.001)
GRID = tuple(
    Row(f"temperature {t}, {n} items, entropy {e:g}", (f"temperature={t}", f"items={n}", f"entropy_weight={e}"))
    for t, n, e in itertools.product(TEMPERATURES, ITEMS, ENTROPIES)
)
AFTER = {"encoder": "before the memory", "memory": "after the memory", "decoder": "in the decoder"}
OURS, NO_FIGURES = "ours: the paper prints no figures", "none"
ABLATIONS = {
    "modules": Table("memory module (M) and coordinate attention (CA)", "Table 6", MVTEC_ONE, COLUMNS, ROWS),
    "temperature": Table(
        "temperature of the memory", OURS, NO_FIGURES, COLUMNS, sweep("temperature", {t: str(t) for t in TEMPERATURES})
    ),
    "items": Table("number of items", OURS, NO_FIGURES, COLUMNS, sweep("items", {n: str(n) for n in ITEMS})),
    "entropy": Table(
        "weight of the entropy", OURS, NO_FIGURES, COLUMNS, sweep("entropy_weight", {e: f"{e:g}" for e in ENTROPIES})
    ),
    "memory": Table("temperature, items and weight of the entropy", "Section 4.2", NO_FIGURES, COLUMNS, GRID),
    "attention": Table(
        "place of the coordinate attention", "Section 4.5", NO_FIGURES, COLUMNS, sweep("attention_after", AFTER)
    ),
}


class MemCA(Autoencoder):
    """ViT encoder, memory, coordinate attention, six blocks of transposed convolution, trained from scratch (4.2)."""

    presets: ClassVar = {"paper": PAPER, "quick": QUICK, "hybrid": HYBRID, "small": SMALL}
    ablations: ClassVar = ABLATIONS
    config: Config

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights)
        c = config
        self.memory = MemoryModule(c.items, c.dim, temperature=c.temperature) if c.memory else None
        self.attention = None
        self.decoder = c.decoder()
        if c.coordinate_attention and c.attention_after == "decoder":
            self.decoder.layers.insert(BLOCK, CoordinateAttention(c.channels[0]))
        elif c.coordinate_attention:
            self.attention = CoordinateAttention(c.dim)

    def reconstruct(self, target: Tensor) -> Tensor:
        return self.decode(self.encode(target))[0]

    def encode(self, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) to what the memory is asked for (B, L, dim)."""
        tokens = self.tokens(target)
        if self.attention is not None and self.config.attention_after == "encoder":
            tokens = self.attention(as_map(tokens, self.encoder.grid)).flatten(2).transpose(1, 2)
        return tokens

    def decode(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Reconstructions, and the entropy (B, L) of each token's memory weights, None without a memory."""
        entropy = None
        if self.memory is not None:
            tokens, entropy = self.memory(tokens)
        features = as_map(tokens, self.encoder.grid)
        if self.attention is not None and self.config.attention_after == "memory":
            features = self.attention(features)
        return self.decoder(features), entropy

    def loss(self, features: Tensor) -> dict[str, Tensor]:
        """Equation 15: L2 + lambda (1 - SSIM), plus the weighted mean entropy over all tokens (Eq. 14 with its minus).

        The terms beside these say how much of the memory is read.
        """
        target = self.targets(features)
        tokens = self.encode(target)
        output, entropy = self.decode(tokens)
        terms = self.terms(target, output)
        if self.memory is not None and entropy is not None:
            terms["entropy"] = entropy.mean()
            terms["loss"] = terms["loss"] + self.config.entropy_weight * terms["entropy"]
            terms |= self.memory.use(tokens)
        return terms
