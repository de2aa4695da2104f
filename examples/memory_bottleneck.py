"""A plain torch autoencoder with vitlite's fused ``memory_read`` in its bottleneck, in the manner of MemAE.

A memory of learned patterns replaces every position of the latent map by a mixture of its patterns, so the decoder
only sees mixtures of patterns of good images. What it cannot make from them shows in the difference. The operator is
all that comes from vitlite.

    python examples/memory_bottleneck.py [STEPS]
"""

import sys

import torch
from torch import nn

from vitlite.kernels import memory_read


def checks(count, size, generator):
    """Images (count, 1, size, size) in 0..1 of checkerboards with fields of 4 or 8 pixels and a random shift."""
    field = torch.where(torch.rand(count, 1, 1, generator=generator) < 0.5, 4, 8)
    shift = torch.randint(0, 16, (2, count, 1, 1), generator=generator)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    fields = (row + shift[0]) // field + (column + shift[1]) // field
    return (0.25 + 0.5 * (fields % 2)).unsqueeze(1)


class MemoryAutoencoder(nn.Module):
    """An encoder to a map of ``channels``, a memory of ``items`` read at each of its positions, and a decoder."""

    def __init__(self, items=64, channels=16):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 32, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, channels, 3, padding=1),
        )
        self.items = nn.Parameter(torch.randn(items, channels))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(channels, 32, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 1, 3, padding=1),
        )

    def forward(self, images):
        """Returns the reconstruction and the mean entropy of the addressing, which a loss keeps small."""
        latent = self.encoder(images)
        batch, channels, height, width = latent.shape
        queries = latent.permute(0, 2, 3, 1).reshape(-1, channels)
        read, entropy = memory_read(queries, self.items)
        latent = read.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return self.decoder(latent), entropy.mean()


def train(model, steps, generator, size=32):
    """Returns the mean squared error of the first and of the last step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    errors = []
    for step in range(steps):
        images = checks(8, size, generator)
        restored, entropy = model(images)
        error = (restored - images).square().mean()
        loss = error + 1e-4 * entropy
        optimizer.zero_grad()
        loss.backward()
        # The slope of the hard shrinkage is steep just above its threshold: expect a rare large gradient.
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        errors.append(error.item())
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step}: squared error {error.item():.4f}, entropy {entropy.item():.2f}")
    return errors[0], errors[-1]


@torch.no_grad()
def difference(model, images):
    """Map (B, H, W) of the squared difference between images and their reconstruction."""
    return (model(images)[0] - images).square().mean(1)


def main(steps: int = 200) -> tuple[float, float, float, float]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = MemoryAutoencoder()
    first, last = train(model, steps, generator)
    stained = checks(1, 32, generator)
    stained[..., 14:26, 14:26] = 1.0
    found = difference(model, stained)[0]
    inside, outside = found[14:26, 14:26].mean().item(), found[:10].mean().item()
    print(f"squared difference: {inside:.3f} at the stain, {outside:.3f} elsewhere")
    return first, last, inside, outside


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
