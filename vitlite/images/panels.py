"""Panels that show how a map comes about: an image, its reconstruction and the parts of its map, side by side."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vitlite.images.heatmap import colorize, scale_map
from vitlite.images.resize import map_at, resize_image

SIDE = 320  # pixels of the longer side of a panel in a strip
GAP = 6  # white pixels between panels
LINE = 22  # pixels of the line of captions, in letters of 14
Span = tuple[float, float] | None  # the values at the ends of a map's colours; None for what is an image


def panel_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of a panel in the proportions of an image; small images grow."""
    factor = SIDE / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def span_of(parts: Sequence[np.ndarray]) -> Span:
    """The lowest and the highest value of maps (h, w), float; None for images (3, h, w)."""
    if parts[0].ndim == 3:
        return None
    return float(min(part.min() for part in parts)), float(max(part.max() for part in parts))


def caption(name: str, span: Span) -> str:
    """What stands above a panel."""
    return name if span is None else f"{name}, {span[0]:.3g} to {span[1]:.3g}"


def panel(part: np.ndarray, height: int, width: int, span: Span) -> np.ndarray:
    """An image (3, h, w) in [0, 1] or a map (h, w), float32, drawn in uint8 (height, width, 3)."""
    return pixels_of(part, height, width) if span is None else coloured(map_at(part, height, width), span)


def pixels_of(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (3, h, w) in [0, 1], float32, as uint8 (height, width, 3)."""
    return resize_image(np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8), (height, width))


def coloured(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """A map (h, w) in colours, uint8 (h, w, 3)."""
    return np.rint(colorize(scale_map(values, *span))).astype(np.uint8)


def strip(panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Captions and uint8 images (H, W, 3) of one height as one image, from left to right."""
    font = ImageFont.load_default(14)
    height = max(image.shape[0] for _, image in panels)
    widths = [max(image.shape[1], int(font.getlength(words)) + 1) for words, image in panels]
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(panels) + 1), height + LINE + GAP), "white")
    left, draw = GAP, ImageDraw.Draw(sheet)
    for (words, image), width in zip(panels, widths):
        draw.text((left, 2), words, "black", font)
        sheet.paste(Image.fromarray(image), (left, LINE))
        left += width + GAP
    return np.asarray(sheet)
