"""A plain torch autoencoder that learns with vitlite's fused ``ssim`` in its loss, and then points at a scratch.

The operator is all that comes from vitlite: this is how to use it in a training loop of your own.

    python examples/ssim_autoencoder.py [STEPS]
"""

import sys

import torch
from torch import nn

from vitlite.kernels import ssim


def stripes(count, size, generator):
    """Images (count, 1, size, size) in 0..1 of stripes with a random phase, direction and width."""
    phase, angle, width = torch.rand(3, count, 1, 1, generator=generator)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    turned = row * torch.sin(angle) + column * torch.cos(angle)
    return (0.5 + 0.4 * torch.sin(turned / (2 + width) + 6.3 * phase)).unsqueeze(1)


def autoencoder():
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(16, 16, 4, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(16, 4, 1),
        nn.ConvTranspose2d(4, 16, 4, stride=2, padding=1),
        nn.GELU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
        nn.Sigmoid(),
    )


def train(model, steps, generator, size=64):
    """Returns the mean similarity of the last batch with its reconstruction."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        images = stripes(8, size, generator)
        restored = model(images)
        similarity = ssim(restored, images, data_range=1.0)
        loss = (1 - similarity) + (restored - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step}: ssim {similarity.item():.3f}")
    return similarity.item()


@torch.no_grad()
def dissimilarity(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Map (B, H, W): how much the surroundings of every pixel differ from their reconstruction."""
    return (1 - ssim(model(images), images, reduction="none")).mean(1)


def main(steps: int = 150) -> tuple[float, float, float]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = autoencoder()
    similarity = train(model, steps, generator)
    scratched = stripes(1, 64, generator)
    scratched[..., 30:33, 20:44] = 1.0
    found = dissimilarity(model, scratched)[0]
    inside, outside = found[28:35, 18:46].mean().item(), found[:20].mean().item()
    print(f"dissimilarity: {inside:.3f} at the scratch, {outside:.3f} elsewhere")
    return similarity, inside, outside


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
