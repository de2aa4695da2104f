"""Defects drawn onto any good image: relative to what is around them, and never more extreme than the image itself.

defects.py damages a synthetic surface, of which everything is known; this file has a photograph alone. A defect is a
region of the part, in which colours move by a few times the local contrast and the texture becomes weaker or stronger.
The direction is random: brightness alone does not give a defect away.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vitlite.data.textures import smoothstep
from vitlite.errors import UserError
from vitlite.images.foreground import estimate_part
from vitlite.images.resize import map_at

MIN_SIDE = 8
FAINT = 3  # levels of 255: every pixel of a mask differs by at least this much in some channel, every other by none
CELLS = 96  # across the box in which a defect is laid out
QUARTER = (0.22, 0.28)  # of the part: what a large defect covers, and what no other exceeds


@dataclass(frozen=True)
class _Kind:
    """Limits between which a kind is drawn."""

    share: tuple[float, float]  # area, in shares of the image
    pixels: int  # area in pixels, at least
    contrast: tuple[float, float]  # change of the mean, in units of the local contrast ...
    levels: tuple[float, float]  # ... and what it is limited to, of 255
    texture: tuple[float, float]  # how much of the texture goes; below 0: how much stronger it becomes
    edge: tuple[float, float]  # how much of the radius the change needs to fade in
    stretch: float  # width to length, at least


# In order, small to large.
_KINDS = {
    "tiny": _Kind((0.0001, 0.0006), 3, (3.0, 5.0), (40, 110), (0.6, 1.0), (0.1, 0.5), 0.15),
    "low-contrast": _Kind((0.004, 0.015), 6, (0.5, 0.9), (11, 22), (-0.35, 0.5), (0.1, 0.6), 0.4),
    "erased": _Kind((0.008, 0.04), 9, (0.1, 0.5), (8, 12), (0.9, 1.0), (0.1, 0.6), 0.4),
    "soft": _Kind((0.03, 0.09), 9, (1.0, 2.0), (16, 45), (-0.2, 0.4), (1.0, 1.0), 0.5),
    "large": _Kind((1.0, 1.0), 12, (0.7, 1.5), (13, 40), (-0.3, 0.5), (0.05, 0.5), 0.5),
}
DRAWN = tuple(_KINDS)
"""The kinds of defects that can be drawn onto any image, small ones first."""


def draw_defect(
    image: np.ndarray, kind: str, rng: np.random.Generator, *, part: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a defect onto a good image; returns the damaged image, uint8 (H, W, 3), and its mask, bool (H, W).

    The mask is exactly the pixels that differ from ``image``, and is never empty. The same state of the generator gives
    the same defect. Brighter is as likely as darker, and warmer as colder, unless the image is so dark or so bright
    that it would not show. The kinds, small to large, in shares of the image, but at most a quarter of the part:

    - ``tiny``: a speck or a nick of 0.01 to 0.06 % (7 to 40 pixels of 256 x 256), far from the colours around it;
    - ``low-contrast``: a mark of 0.3 to 1.5 % that is barely brighter or darker, its texture weaker or stronger;
    - ``erased``: a place of 0.5 to 5 % whose texture and structure are gone, filled with about their mean colour;
    - ``soft``: a blurred smear of 1 to 8 %, strongest in its middle;
    - ``large``: a stain over 15 to 28 % of the part.

    How far colours move is a multiple of the local contrast: its median absolute deviation near the defect.

    Args:
        image: uint8 (H, W, 3), at least 8 x 8. A grey one (three equal channels) stays grey.
        kind: one of ``DRAWN``.
        rng: where the random numbers come from.
        part: bool (H, W), where the defect may lie; everywhere if nothing is marked. None: ``estimate_part(image)``,
            which costs about as much as the drawing and is the same for each defect of one image.

    Raises:
        UserError: another kind, or an image or a part of another dtype or shape.
    """
    if kind not in _KINDS:
        raise UserError(f"`kind={kind}`: choose from {', '.join(DRAWN)}")
    limits, part = _KINDS[kind], _require(image, part)
    cover, box = _region(limits, rng, part)
    old, on_part = image[box].astype(np.float32), part[box]
    middle = np.average(old[on_part], axis=0, weights=cover[on_part])
    shift = _shift(limits, rng, old[on_part], middle)
    # As a stain does, the change grows with the brightness of what it covers.
    texture = rng.uniform(*limits.texture) - 0.7 * shift.mean() / max(float(middle.mean()), 1.0)
    change = cover[..., None] * (shift - texture * (old - middle))
    # Not beyond the colours of the part, of the same pixel before, or of what is meant.
    low, high = _range(image, part)
    low, high = np.minimum(low, middle + shift), np.maximum(high, middle + shift)
    new = np.clip(old + change, np.minimum(low, old), np.maximum(high, old))
    damaged, mask = image.copy(), np.zeros(part.shape, bool)
    mask[box] = on_part & (cover * np.abs(shift).max() >= FAINT)
    damaged[box] = np.where(mask[box][..., None], _visible(new, image[box], shift), image[box])
    return damaged, mask


def _require(image: np.ndarray, part: np.ndarray | None) -> np.ndarray:
    """The part; UserError if an array cannot be used."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE:
        wanted = f"uint8 of shape (H, W, 3), at least {MIN_SIDE} x {MIN_SIDE}"
        raise UserError(f"`image`: must be {wanted}, not {image.dtype} {image.shape}")
    if part is None:
        return estimate_part(image)
    if part.dtype != np.bool_ or part.shape != image.shape[:2]:
        raise UserError(f"`part`: must be bool of shape {image.shape[:2]}, not {part.dtype} {part.shape}")
    return part if part.any() else np.ones_like(part)


def _region(limits: _Kind, rng: np.random.Generator, part: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
    """How much of the change each pixel gets, float32 of 0 to 1, in a box of the image, and that box.

    A region is where a field is low: the distance to a point of the part, stretched along a direction and made uneven.
    The field is laid out on cells of several pixels if it is large.
    """
    whole = int(part.sum())
    area = max(limits.pixels, min(rng.uniform(*limits.share) * part.size, rng.uniform(*QUARTER) * whole))
    centre = np.array(np.unravel_index(np.flatnonzero(part)[rng.integers(whole)], part.shape))
    angle, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(limits.stretch, 1))
    reach = int(2.5 * np.sqrt(area / np.pi) / stretch) + 3
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, part.shape)
    if part[low[0] : high[0], low[1] : high[1]].sum() < area:  # a thin part: the region follows it
        low, high = np.zeros(2, int), np.array(part.shape)
    step = max(1, int((high - low).min()) // CELLS)
    weights = _sums(part[low[0] : high[0], low[1] : high[1]], step)
    y, x = (low[i] + (np.arange(weights.shape[i]) + 0.5) * step - 0.5 - centre[i] for i in (0, 1))
    along = (np.cos(angle) * x[None] + np.sin(angle) * y[:, None]) * stretch
    across = (np.cos(angle) * y[:, None] - np.sin(angle) * x[None]) / stretch
    uneven = _clouds(rng, weights.shape)
    field = np.hypot(along, across) * np.exp(0.25 * uneven)
    field -= field[weights > 0].min()
    order = np.argsort(field, axis=None)
    reached = min(int(np.searchsorted(np.cumsum(weights.flat[order]), area)), field.size - 1)
    outline = max(float(field.flat[order[reached]]), 1.0 if step == 1 else 1.5 * step)
    rows, columns = _extent((field < outline).any(axis=1)), _extent((field < outline).any(axis=0))
    top, left = low[0] + rows.start * step, low[1] + columns.start * step
    bottom, right = min(low[0] + rows.stop * step, high[0]), min(low[1] + columns.stop * step, high[1])
    field, uneven = (
        map_at(cells[rows, columns], (rows.stop - rows.start) * step, (columns.stop - columns.start) * step)
        for cells in (field, uneven)
    )
    edge = max(rng.uniform(*limits.edge), min(1.2 / outline, 1))
    cover = (1 - smoothstep(field / outline, 1 - edge, 1 + 1e-3)) * (1 - 0.3 * smoothstep(uneven, -1, 1.5))
    return cover[: bottom - top, : right - left], (slice(top, bottom), slice(left, right))


def _sums(part: np.ndarray, step: int) -> np.ndarray:
    """How many pixels of the part are in each cell of ``step`` x ``step`` pixels; the last ones may be cut off."""
    height, width = part.shape
    padded = np.pad(part, ((0, -height % step), (0, -width % step)))
    return padded.reshape(-(-height // step), step, -(-width // step), step).sum(axis=(1, 3))


def _extent(occupied: np.ndarray) -> slice:
    """From the first to the last True, and one more on both sides."""
    found = np.flatnonzero(occupied)
    return slice(max(int(found[0]) - 1, 0), min(int(found[-1]) + 2, len(occupied)))


def _clouds(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Smooth noise of unit variance."""
    side = min(shape)
    white = rng.standard_normal(shape, dtype=np.float32)
    coarse, fine = (ndimage.gaussian_filter(white, side / n, mode="wrap") * (side / n) for n in (8, 24))
    total = coarse + 0.5 * fine
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def _shift(limits: _Kind, rng: np.random.Generator, around: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The change of the mean colour in levels, float32 (3,): brighter or darker, warmer or colder.

    ``around`` are the colours near the defect, (N, 3), and ``middle`` is their mean where it lies.
    """
    around = around[:: max(1, len(around) // 4096)]
    grey, level = around.mean(axis=1), float(middle.mean())
    contrast = 1.4826 * float(np.median(np.abs(grey - np.median(grey))))
    size = float(np.clip(rng.uniform(*limits.contrast) * contrast, *limits.levels))
    sign, tint = int(rng.choice((-1, 1))), rng.uniform(-0.4, 0.4)
    room = {1: 255 - level, -1: level}
    if room[sign] < limits.levels[0]:
        sign = -sign
    if (around == around[:, :1]).all():
        tint = 0.0  # a camera without colour
    return (sign * min(size, room[sign]) * np.array((1 + tint, 1, 1 - tint))).astype(np.float32)


def _range(image: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The darkest and the brightest colour of the part, (2, 3), without its rarest pixels."""
    step = max(1, min(part.shape) // 128)
    sample = image[::step, ::step][part[::step, ::step]]
    return np.quantile(sample if len(sample) else image[part], (0.005, 0.995), axis=0)


def _visible(new: np.ndarray, old: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """New colours (..., 3) as uint8; one that hardly moved moves by ``FAINT``, so that masks have no holes."""
    rounded, before = np.rint(np.clip(new, 0, 255)).astype(np.int16), old.astype(np.int16)
    up = (before < FAINT) | ((shift.mean() > 0) & (before <= 255 - FAINT))
    hardly = np.abs(rounded - before).max(axis=-1, keepdims=True) < FAINT
    return np.where(hardly, before + np.where(up, FAINT, -FAINT), rounded).astype(np.uint8)
