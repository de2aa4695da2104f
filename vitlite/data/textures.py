"""Synthetic surfaces: what a good part looks like, different in every image within natural limits.

A texture is a function ``(rng, size) -> Scene``. Lengths are in units of 1/256 of the image's width, so a pattern
looks the same at every size; only the finest noise is per pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

UNITS = 256


@dataclass(frozen=True)
class Scene:
    """A good surface before lighting and sensor noise; arrays are float32, colours 0..1."""

    image: np.ndarray  # (H, W, 3)
    behind: np.ndarray  # (H, W, 3): what shows behind a missing piece
    part: np.ndarray  # (H, W), 0..1: how much of a pixel the part covers; defects lie on it


def noise(rng: np.random.Generator, size: int, sigma: float | tuple[float, float]) -> np.ndarray:
    """Gaussian-filtered white noise of unit variance; ``sigma`` in pixels, one number or one for each axis.

    Filtered as a product of spectra, which costs the same for every sigma.
    """
    sigmas = np.broadcast_to(sigma, 2)
    spectrum = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    for axis, frequencies in enumerate((fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :])):
        spectrum *= np.exp(-2 * (np.pi * sigmas[axis] * frequencies) ** 2).astype(np.float32)
    field = fft.irfft2(spectrum, s=(size, size))
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def coordinates(
    size: int, angle: float, shift: np.ndarray | tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres in units, y and x of shape (H, W), turned by ``angle`` degrees about the middle and shifted."""
    centre = UNITS / 2
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (UNITS / size) - centre).astype(np.float32)
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    y = cosine * axis[:, None] - sine * axis[None, :] + (shift[0] + centre)
    x = sine * axis[:, None] + cosine * axis[None, :] + (shift[1] + centre)
    return y.astype(np.float32), x.astype(np.float32)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to ``low``, 1 from ``high``, and smooth between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def tint(grey: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """A grey image (H, W) in one colour, (H, W, 3)."""
    return (grey[..., None] * np.asarray(colour, np.float32)).astype(np.float32)


def weave(rng: np.random.Generator, size: int) -> Scene:
    """Plain weave: warp and weft threads that pass over each other in turn, each a little different."""
    period = 11.0
    y, x = coordinates(size, rng.normal(0, 1.0), rng.uniform(0, 2 * period, 2))
    wobble = noise(rng, size, 14 * size / UNITS)
    y, x = y + 0.7 * wobble, x - 0.7 * wobble
    across, along = np.floor(x / period).astype(int), np.floor(y / period).astype(int)
    over = (across + along) % 2 == 0
    profile = np.where(over, x, y) / period % 1 - 0.5
    length = np.where(over, y, x) / period % 1 - 0.5
    height = np.maximum(np.cos(np.pi * profile), 0) ** 0.7 * (0.55 + 0.45 * np.cos(np.pi * length))
    tones = rng.normal(0, 0.05, (2, 97))
    shade = np.where(over, tones[0][across % 97], tones[1][along % 97])
    fibres = 0.04 * noise(rng, size, 0.6 * size / UNITS)
    grey = 0.30 + 0.42 * height * (1 + shade) + fibres
    colour = np.where(over[..., None], (1.0, 0.90, 0.74), (0.86, 0.84, 0.80)).astype(np.float32)
    backing = tint(0.13 + 0.02 * noise(rng, size, 1.0), (1.0, 0.85, 0.7))
    return Scene((grey[..., None] * colour).astype(np.float32), backing, np.ones((size, size), np.float32))


def wood(rng: np.random.Generator, size: int) -> Scene:
    """Straight-grained board: wavy growth rings cut lengthwise, and short dark pores."""
    _, x = coordinates(size, rng.normal(0, 1.5), (0, rng.uniform(0, 500)))
    unit = size / UNITS
    bend = 5.0 * noise(rng, size, (70 * unit, 16 * unit)) + 1.2 * noise(rng, size, (30 * unit, 5 * unit))
    rings = (x + bend) / rng.uniform(20, 24) % 1
    late = smoothstep(rings, 0.25, 0.92) * (1 - smoothstep(rings, 0.94, 1.0))
    pores = np.maximum(noise(rng, size, (7 * unit, 0.6 * unit)) - 1.4, 0)
    fibre = noise(rng, size, (18 * unit, 0.8 * unit))
    grey = 0.74 - 0.20 * late + 0.03 * fibre - 0.10 * pores
    image = tint(grey, (1.0, 0.76, 0.52)) + 0.04 * late[..., None] * np.array([0.6, 0.0, -0.3], np.float32)
    hollow = tint(0.29 + 0.03 * noise(rng, size, (6 * unit, 1.0)), (1.0, 0.72, 0.5))
    return Scene(image, hollow, np.ones((size, size), np.float32))


def metal(rng: np.random.Generator, size: int) -> Scene:
    """Brushed metal: fine streaks along one direction, and a soft reflection across them."""
    unit = size / UNITS
    streaks = 0.6 * noise(rng, size, (0.5 * unit, 60 * unit)) + 0.4 * noise(rng, size, (0.4, 12 * unit))
    broad = noise(rng, size, (4 * unit, 90 * unit))
    y, _ = coordinates(size, rng.normal(0, 3.0))
    gloss = np.exp(-(((y - rng.uniform(70, 186)) / 75) ** 2))
    grey = 0.50 + 0.055 * streaks + 0.02 * broad + 0.12 * gloss
    pit = tint(0.28 + 0.03 * noise(rng, size, 1.2), (0.96, 0.97, 1.0))
    return Scene(tint(grey, (0.97, 0.99, 1.02)), pit, np.ones((size, size), np.float32))


def granite(rng: np.random.Generator, size: int) -> Scene:
    """Polished granite: grains of three minerals on a mottled ground."""
    unit = size / UNITS
    ground = 0.55 + 0.05 * noise(rng, size, 1.2 * unit) + 0.03 * noise(rng, size, 6 * unit)
    image = tint(ground, (1.0, 0.95, 0.92))
    minerals = (((0.62, 0.49, 0.45), 1.9, 1.0), ((0.70, 0.69, 0.67), 1.6, 1.1), ((0.22, 0.21, 0.24), 1.3, 1.6))
    for colour, sigma, threshold in minerals:
        grains = smoothstep(noise(rng, size, sigma * unit), threshold - 0.15, threshold + 0.15)[..., None]
        image = image * (1 - grains) + grains * np.array(colour, np.float32)
    chip = tint(0.16 + 0.03 * noise(rng, size, 1.5 * unit), (1.0, 0.97, 0.95))
    return Scene(image.astype(np.float32), chip, np.ones((size, size), np.float32))


def tiles(rng: np.random.Generator, size: int) -> Scene:
    """Glazed tiles with grout between them; each tile has a tone of its own."""
    pitch = 64.0
    y, x = coordinates(size, rng.normal(0, 0.8), rng.uniform(0, pitch, 2))
    row, column = np.floor(y / pitch).astype(int), np.floor(x / pitch).astype(int)
    edge = np.minimum(pitch / 2 - np.abs(y % pitch - pitch / 2), pitch / 2 - np.abs(x % pitch - pitch / 2))
    glaze = smoothstep(edge, 1.6, 3.2)
    tone = 0.62 + rng.normal(0, 0.025, (7, 7))[row % 7, column % 7]
    bevel = 0.05 * (1 - smoothstep(edge, 3.0, 7.0)) * np.where(y % pitch < x % pitch, 1.0, -1.0)
    grey = tone + bevel + 0.012 * noise(rng, size, 5 * size / UNITS)
    grout = tint(0.42 + 0.035 * noise(rng, size, 0.8), (1.0, 0.97, 0.92))
    image = tint(grey, (0.80, 0.96, 1.0)) * glaze[..., None] + grout * (1 - glaze[..., None])
    clay = tint(0.38 + 0.04 * noise(rng, size, 1.2), (1.15, 0.80, 0.62))
    return Scene(image.astype(np.float32), clay, np.ones((size, size), np.float32))


def gear(rng: np.random.Generator, size: int) -> Scene:
    """An object on a mat: a toothed wheel with a bore and six holes, a little moved and turned each time."""
    y, x = coordinates(size, rng.normal(0, 2.5), rng.normal(0, 2.5, 2))
    y, x = y - UNITS / 2, x - UNITS / 2
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    rim = 96 + 8 * np.tanh(3.0 * np.cos(18 * angle))
    sector = (angle + np.pi / 6) % (np.pi / 3) - np.pi / 6
    hole = np.hypot(radius * np.cos(sector) - 60, radius * np.sin(sector)) - 11
    inside = np.minimum(np.minimum(rim - radius, radius - 27), hole)  # distance to the nearest edge, negative outside
    solid = smoothstep(inside, -0.8, 0.8)
    bevel = 0.10 * np.exp(-((inside - 2) ** 2) / 6) * np.cos(angle + 2.3)
    turning = 0.018 * np.sin(radius * 1.3 + rng.uniform(0, 6)) + 0.02 * noise(rng, size, 0.8)
    grey = 0.60 + bevel + turning + 0.06 * np.cos(2 * angle + 0.6)
    mat = tint(0.20 + 0.02 * noise(rng, size, 1.0), (0.75, 0.9, 1.15))
    above = ndimage.shift(inside, 3 * size / UNITS, order=1, mode="nearest")
    mat = mat * (1 - 0.35 * smoothstep(above, -6, 2))[..., None]
    image = tint(grey, (1.0, 0.95, 0.84)) * solid[..., None] + mat * (1 - solid[..., None])
    return Scene(image.astype(np.float32), mat.astype(np.float32), solid)


TEXTURES: dict[str, Callable[[np.random.Generator, int], Scene]] = {
    "weave": weave,
    "wood": wood,
    "gear": gear,
    "metal": metal,
    "granite": granite,
    "tiles": tiles,
}


def photograph(rng: np.random.Generator, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """One exposure: returns a function from a scene's colours (H, W, 3) to the uint8 image.

    Called for the good and for the damaged surface it applies the same light and the same noise to both, so that they
    differ by the defect alone.
    """
    _, x = coordinates(size, rng.uniform(0, 360))
    slope = 1 + np.float32(rng.normal(0, 0.035)) * (x - UNITS / 2) / (UNITS / 2)
    balance = rng.normal(1, 0.006, 3).astype(np.float32)
    light = np.float32(rng.normal(1, 0.045)) * slope[..., None] * balance
    contrast = np.float32(rng.normal(1, 0.05))
    grain = 0.012 * rng.standard_normal((size, size, 1), dtype=np.float32)
    grain = grain + 0.004 * rng.standard_normal((size, size, 3), dtype=np.float32)

    def expose(colours: np.ndarray) -> np.ndarray:
        values = ((colours - 0.5) * contrast + 0.5) * light + grain
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)

    return expose
