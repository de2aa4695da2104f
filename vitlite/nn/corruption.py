"""Pixel-level corruption of good images (ISSTAD, Sections 3.3.1 and 4.1.3), with an exact label for every pixel."""

import math
from typing import Any

import torch
from torch import Tensor

from vitlite.images.tiles import Size, sides

LEVEL = 1 / 255  # images have eight bits; so do their corrupted copies

Table = dict[str, Tensor]  # what each block is and does, (images, blocks) or (images, blocks, 3) each


def corrupt(
    images: Tensor,
    *,
    share: float = 5 / 6,
    blocks: int = 100,
    largest: float = 0.3,
    visible: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Damage random blocks of some images.

    Each image is chosen with probability ``share`` and gets 1 to ``blocks`` rectangles, sides drawn log-uniformly from
    one pixel to ``largest`` of the image's shorter side, so that small ones are common. Each block undergoes one or
    more of: rotation by any angle about its centre, mirroring, Gaussian noise, a change of colour. If blocks overlap,
    the later one counts.

    Args:
        images: float (B, 3, H, W) in [0, 1].
        visible: pixels that change by no more than this in every channel (in [0, 1]) stay as they were.
        generator: of the random numbers, on the images' device; None: torch's global one.

    Returns:
        ``(corrupted, labels)``: images of the same shape, and float (B, H, W), 1 exactly where a pixel differs from the
        original. Changed pixels lie on 8-bit levels.
    """
    draw = Draw(images.device, generator)
    size = images.shape[2], images.shape[3]
    table = draw_blocks(draw, len(images), size, blocks, largest, share)
    owner = paint(table, size)
    image, row, column = covered(owner)
    block = owner[image, row, column]
    pixels = images.permute(0, 2, 3, 1)
    before = pixels[image, row, column]
    after = change_pixels(draw, pixels, table, image, block, row, column)
    changed = ((after - before).abs().amax(1) > max(visible, 0.5 * LEVEL)) & (block >= 0)

    corrupted, labels = pixels.clone(), torch.zeros_like(pixels[..., 0])
    corrupted[image, row, column] = torch.where(changed[:, None], after, before)
    labels[image, row, column] = changed.to(labels.dtype)
    return corrupted.permute(0, 3, 1, 2).contiguous(), labels


class Draw:
    """Random numbers of one device and generator."""

    def __init__(self, device: torch.device, generator: torch.Generator | None) -> None:
        self.options: dict[str, Any] = {"device": device, "generator": generator}

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """From ``low`` to ``high``."""
        return low + (high - low) * torch.rand(*shape, **self.options)

    def normal(self, *shape: int) -> Tensor:
        """Mean 0, deviation 1."""
        return torch.randn(*shape, **self.options)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """From ``low`` to ``high``, both included."""
        return torch.randint(low, high + 1, shape, **self.options)

    def coin(self, chance: float, *shape: int) -> Tensor:
        """True with probability ``chance``."""
        return torch.rand(*shape, **self.options) < chance


def draw_blocks(draw: Draw, count: int, size: Size, most: int, largest: float, share: float) -> Table:
    """For each image ``most`` blocks: where each lies, whether it is used, and what it does."""
    shape = (count, most)
    longest = math.log(max(largest * min(sides(size)), 1.0))
    height, width = (draw.uniform(0, longest, *shape).exp().round().long() for _ in "hw")
    axes = zip(sides(size), (height, width))
    top, left = ((draw.uniform(0, 1, *shape) * (whole - side + 1)).long() for whole, side in axes)
    number = draw.integers(1, most, count, 1) * draw.coin(share, count, 1)
    # Each of the four with an even chance, and one of them for certain.
    does = draw.coin(0.5, *shape, 4)
    does.scatter_(2, draw.integers(0, 3, *shape, 1), True)
    rotates, mirrors, noisy, coloured = does.unbind(2)
    angle = draw.uniform(0, 2 * math.pi, *shape) * rotates
    # Both mirrorings together are a rotation by half a turn; one of them alone is drawn.
    flips_rows = draw.coin(0.5, *shape)
    return {
        "used": torch.arange(most, device=number.device) < number,
        "top": top,
        "left": left,
        "height": height,
        "width": width,
        "cos": angle.cos(),
        "sin": angle.sin(),
        "row_sign": 1.0 - 2.0 * (mirrors & flips_rows),
        "column_sign": 1.0 - 2.0 * (mirrors & ~flips_rows),
        "noise": draw.uniform(0.05, 0.3, *shape) * noisy,
        **draw_colours(draw, shape, coloured),
    }


def draw_colours(draw: Draw, shape: tuple[int, int], coloured: Tensor) -> Table:
    """For each block: which channel each channel takes its values from, and the gain and shift of each."""
    on = coloured[..., None]
    swap = on & draw.coin(0.3, *shape, 1)
    source = torch.where(swap, draw.uniform(0, 1, *shape, 3).argsort(dim=2), torch.arange(3, device=on.device))
    gain = (draw.uniform(-0.5, 0.5, *shape, 1) + draw.uniform(-0.2, 0.2, *shape, 3)).exp()
    shift = draw.uniform(-0.3, 0.3, *shape, 1) + draw.uniform(-0.15, 0.15, *shape, 3)
    return {"source": source, "gain": torch.where(on, gain, 1.0), "shift": shift * on}


def paint(table: Table, size: Size) -> Tensor:
    """(B, H, W) index of the last block that covers each pixel, or -1."""
    height, width = sides(size)

    def inside(side: int, first: Tensor, length: Tensor) -> Tensor:
        places = torch.arange(side, device=first.device)
        return (places >= first[..., None]) & (places < (first + length)[..., None])  # (B, K, side)

    rows = inside(height, table["top"], table["height"]) & table["used"][..., None]
    columns = inside(width, table["left"], table["width"])
    # One matrix product for all blocks: block k adds 4^(k+1) where it lies, more than all blocks before it together,
    # so the binary exponent of the sum tells the last one. 4^128 is far from float64's largest number.
    order = torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=torch.float64)
    sums = (rows * torch.exp2(2 * order)[:, None]).transpose(1, 2) @ columns.double()
    return torch.where(sums > 0, (torch.frexp(sums).exponent - 1).long() // 2, 0) - 1


def covered(owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(image, row, column), (n,) each, of the pixels that a block covers; on a GPU of all, to count none there."""
    if owner.is_cuda:
        image, row, column = (torch.arange(size, device=owner.device) for size in owner.shape)
        image, row, column = (index.flatten() for index in torch.meshgrid(image, row, column, indexing="ij"))
    else:
        image, row, column = owner.ge(0).nonzero(as_tuple=True)
    return image, row, column


def change_pixels(
    draw: Draw, pixels: Tensor, table: Table, image: Tensor, block: Tensor, row: Tensor, column: Tensor
) -> Tensor:
    """New values (n, 3) for n of the ``pixels`` (B, H, W, 3), each by what its block does.

    image, block, row, column: (n,) each.
    """
    _, height, width, _ = pixels.shape
    of = {name: values[image, block] for name, values in table.items()}
    y0, x0 = (of[first] + (of[side] - 1) / 2 for first, side in (("top", "height"), ("left", "width")))
    dy, dx = (row - y0) * of["row_sign"], (column - x0) * of["column_sign"]
    y = (y0 + of["cos"] * dy - of["sin"] * dx).round().long().clamp(0, height - 1)
    x = (x0 + of["sin"] * dy + of["cos"] * dx).round().long().clamp(0, width - 1)
    values = pixels[image, y, x].gather(1, of["source"]) * of["gain"] + of["shift"]
    values = values + of["noise"][:, None] * draw.normal(*values.shape)
    return (values.clamp(0, 1) / LEVEL).round() / 255
