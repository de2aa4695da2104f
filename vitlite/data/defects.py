"""Synthetic defects: functions ``(rng, scene) -> colours`` that return the scene's image, damaged.

They move every pixel they touch well away from what was there, so that masks taken from the difference have no holes.
Lengths are in units of 1/256 of the image's width, as in textures.py, and never below what a pixel can show.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from vitlite.data.textures import UNITS, Scene, noise, smoothstep


def scratch(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """A thin curved line, bright where it is fresh metal or fibre, with a dark lip along one side."""
    size = scene.part.shape[0]
    unit = size / UNITS
    middle = _place(rng, scene, 24)
    heading, bend, half = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.25), rng.uniform(22, 55) * unit
    start, end = middle - half * _direction(heading - bend), middle + half * _direction(heading + bend)
    width = max(rng.uniform(0.9, 1.7) * unit, 0.7)
    distance, lip = _curve_distance(start, middle, end, size, width)
    strength = rng.choice((-1.0, 1.0), p=(0.45, 0.55)) * rng.uniform(0.20, 0.30)
    line = 1 - smoothstep(distance, width * 0.7, width * 1.5)
    edge = 1 - smoothstep(lip, width * 0.6, width * 1.2)
    change = (strength * line - 0.5 * strength * edge * (1 - line)) * scene.part
    return scene.image + change[..., None].astype(np.float32)


def spot(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """One to three round stains close together, darker and tinted, as oil or rust leave them."""
    size = scene.part.shape[0]
    unit = size / UNITS
    centre = _place(rng, scene, 10)
    stain = np.array(((0.50, 0.42, 0.34), (0.42, 0.46, 0.52), (0.58, 0.38, 0.30))[rng.integers(3)], np.float32)
    cover = np.zeros(scene.part.shape, np.float32)
    for i in range(rng.integers(1, 4)):
        radius = max(rng.uniform(4.0, 8.5) * unit, 1.5)
        offset = rng.normal(0, 9 * unit, 2) * (i > 0)
        blob = _blob(rng, centre + offset, radius, size, rough=0.12)
        cover = np.maximum(cover, smoothstep(blob, -0.15, 0.15))
    cover = (cover * scene.part * rng.uniform(0.8, 1.0))[..., None]
    return scene.image * (1 - cover) + scene.image * stain * cover


def missing(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """A piece is gone and what lies behind shows, with a shaded rim."""
    size = scene.part.shape[0]
    unit = size / UNITS
    radius = max(rng.uniform(6.5, 12.0) * unit, 2.0)
    blob = _blob(rng, _place(rng, scene, 8), radius, size, rough=0.3)
    gone = smoothstep(blob, -0.04, 0.06)[..., None]  # beside the part image and behind are the same: no change there
    depth = 1 - (0.35 * (1 - smoothstep(blob, 0.0, 0.5)) * scene.part)[..., None]
    return scene.image * (1 - gone) + scene.behind * depth * gone


DEFECTS: dict[str, Callable[[np.random.Generator, Scene], np.ndarray]] = {
    "scratch": scratch,
    "spot": spot,
    "missing": missing,
}


def _place(rng: np.random.Generator, scene: Scene, margin: float) -> np.ndarray:
    """A random position (y, x) in pixels on the part, ``margin`` units inside the image."""
    size = scene.part.shape[0]
    border = int(margin * size / UNITS) + 1
    rows, columns = np.nonzero(scene.part[border:-border, border:-border] > 0.9)
    pick = rng.integers(len(rows))
    return np.array((rows[pick], columns[pick]), np.float64) + border


def _direction(angle: float) -> np.ndarray:
    return np.array((np.sin(angle), np.cos(angle)))


def _curve_distance(
    start: np.ndarray, middle: np.ndarray, end: np.ndarray, size: int, lip: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distance in pixels of every pixel to a quadratic Bezier curve, and to the curve moved ``lip`` * 2 sideways."""
    t = np.linspace(0, 1, 4 * size)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    along = (end - start) / max(float(np.hypot(*(end - start))), 1e-6)
    side = 2 * lip * np.array((along[1], -along[0]))
    return _distance_to(curve, size), _distance_to(curve + side, size)


def _distance_to(points: np.ndarray, size: int) -> np.ndarray:
    """Distance in pixels to the nearest point, on a grid four times as fine as the pixels' near the points."""
    fine = 4
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 8, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 9, size)
    result = np.full((size, size), 1e3, np.float32)
    if (high <= low).any():
        return result
    empty = np.ones((high - low) * fine, bool)
    at = np.rint((points - low + 0.5) * fine - 0.5).astype(int)
    at = at[((at >= 0) & (at < empty.shape)).all(axis=1)]
    empty[at[:, 0], at[:, 1]] = False
    if len(at):
        distance = ndimage.distance_transform_edt(empty) / fine
        box = distance.reshape(high[0] - low[0], fine, high[1] - low[1], fine).mean(axis=(1, 3))
        result[low[0] : high[0], low[1] : high[1]] = box
    return result


def _blob(rng: np.random.Generator, centre: np.ndarray, radius: float, size: int, rough: float) -> np.ndarray:
    """1 at the centre, 0 on the outline, negative outside; the outline is a circle with ``rough`` irregularity."""
    axis = np.arange(size, dtype=np.float32)
    y, x = (axis - centre[0])[:, None], (axis - centre[1])[None, :]
    angle = np.arctan2(y, x)
    waves = rng.normal(0, 1, (4, 2)) / np.arange(1, 5)[:, None]
    wave = sum(a * np.cos(k * angle) + b * np.sin(k * angle) for k, (a, b) in enumerate(waves, start=1))
    ripple = noise(rng, size, max(radius / 4, 0.8))
    outline = radius * np.clip(1 + rough * (0.5 * wave + 0.25 * ripple), 0.5, 1.7)
    return 1 - np.hypot(y, x) / outline
