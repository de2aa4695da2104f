"""Random products: surfaces and parts of random textures and shapes. Images of one differ as those of a real one do.

They are what the transformer of SIVT is taught on before it meets a real part (``vitlite bench start``). A program is
drawn from its seed: textures, shapes, and how much their place, turn, light and noise change from image to image.
Lengths are in units of 1/256 of the image's side.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from vitlite.data.textures import UNITS, noise

TEXTURES = {
    "flat": 0.2,
    "clouds": 0.2,
    "brushed": 0.15,
    "grating": 0.12,
    "pattern": 0.13,
    "cells": 0.1,
    "dots": 0.1,
}  # with their shares
SHAPES = ("ellipse", "box", "polygon", "ring", "bar", "gear", "thread")
TURNS = {0.0: 0.35, 0.05: 0.35, np.pi: 0.3}  # radians to either side, with their shares


def sigmoid(x: np.ndarray, width: float) -> np.ndarray:
    """From 0 to 1, over some widths about 0."""
    return 1 / (1 + np.exp(-np.clip(x / width, -30, 30)))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class Texture:
    """Two colours and a pattern between them. ``texture(rng, y, x)`` paints it at coordinates (H, W)."""

    def __init__(self, rng: np.random.Generator, contrast: float) -> None:
        grey, tinted = rng.random() < 0.4, rng.random() < 0.5
        self.first = np.full(3, rng.uniform(0.08, 0.9)) if grey else rng.uniform(0.08, 0.9, 3)
        self.second = np.clip(self.first + rng.normal(0, 0.18 * contrast, 3 if tinted else 1), 0.02, 1)
        self.kind = str(rng.choice(list(TEXTURES), p=list(TEXTURES.values())))
        self.angle, self.period = rng.uniform(0, np.pi), log_uniform(rng, 5, 48)
        self.grain = log_uniform(rng, 1.2, 20)
        self.speckle, self.wobble = rng.uniform(0, 0.04), rng.uniform(0, 0.15) * self.period
        self.tiles = rng.random((6, 6))

    def __call__(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        share = np.clip(getattr(self, f"_{self.kind}")(rng, y, x), 0, 1)[..., None]
        colour = self.first + (self.second - self.first) * share
        return colour + self.speckle * rng.standard_normal((*y.shape, 1))

    def _turned(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates in periods along and across the texture, with its wobble."""
        cosine, sine, size = np.cos(self.angle), np.sin(self.angle), len(y)
        along, across = cosine * x + sine * y, cosine * y - sine * x
        if self.wobble > 0.1:
            along = along + self.wobble * noise(rng, size, 20 * size / UNITS)
            across = across + self.wobble * noise(rng, size, 20 * size / UNITS)
        return along / self.period, across / self.period

    def _flat(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.zeros_like(y)

    def _clouds(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return 0.5 + 0.25 * noise(rng, len(y), self.grain * len(y) / UNITS)

    def _brushed(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        unit = len(y) / UNITS
        lines = noise(rng, len(y), (6 * self.grain * unit, max(0.7, self.grain / 3) * unit))
        turned = ndimage.rotate(lines, np.degrees(self.angle), reshape=False, mode="reflect", order=1)
        return 0.5 + 0.25 * turned

    def _grating(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return 0.5 + 0.5 * np.cos(2 * np.pi * self._turned(rng, y, x)[0])

    def _pattern(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        along, across = self._turned(rng, y, x)
        return self.tiles[np.floor(3 * along).astype(int) % 6, np.floor(3 * across).astype(int) % 6]

    def _dots(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        along, across = self._turned(rng, y, x)
        return sigmoid(0.3 - np.hypot(along % 1 - 0.5, across % 1 - 0.5), 0.04)

    def _cells(self, rng: np.random.Generator, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        size = len(y)
        count = int(np.clip((UNITS / max(2 * self.grain, 6)) ** 2, 20, 1500))
        grid = np.indices((size, size)).reshape(2, -1).T
        distances, nearest = cKDTree(rng.uniform(0, size, (count, 2))).query(grid, k=2)
        edge = np.minimum((distances[:, 1] - distances[:, 0]) / 3, 1)
        return (0.6 * rng.random(count)[nearest[:, 0]] + 0.4 * edge).reshape(size, size)


class Shape:
    """A shape with a texture, at a place of a part that it keeps up to a jitter."""

    def __init__(self, rng: np.random.Generator, size: float) -> None:
        self.kind = str(rng.choice(SHAPES))
        self.centre, self.radii = rng.normal(0, 0.35 * size, 2), np.exp(rng.normal(np.log(size), 0.4, 2))
        self.angle, self.corners = rng.uniform(0, np.pi), int(rng.integers(3, 14))
        self.teeth, self.width = rng.uniform(0.03, 0.2), rng.uniform(0.08, 0.3)
        self.texture = Texture(rng, 1.0)
        self.jitter, self.softness, self.shade = rng.uniform(0, 1.5), rng.uniform(0.5, 1.5), rng.uniform(-0.4, 0.4)

    def paint(self, rng: np.random.Generator, image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The image (H, W, 3) with the shape on it; ``y`` and ``x`` are coordinates of the part."""
        down, right = self.centre + rng.normal(0, self.jitter, 2)
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        u, v = cosine * (x - right) + sine * (y - down), cosine * (y - down) - sine * (x - right)
        cover = sigmoid(self.inside(u, v), self.softness)[..., None]
        shade = 1 + self.shade * np.clip(u / self.radii[0], -1, 1)[..., None]
        return image * (1 - cover) + cover * np.clip(self.texture(rng, y, x) * shade, 0, 1)

    def inside(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """About the distance from the outline, positive within; ``u`` and ``v`` are coordinates of the shape."""
        first, second = self.radii
        radius = min(first, second)
        if self.kind == "ellipse":
            return (1 - np.hypot(u / first, v / second)) * radius
        if self.kind == "box":
            return np.minimum(first - abs(u), second - abs(v))
        if self.kind == "ring":
            return self.width * radius - abs(np.hypot(u, v) - radius)
        if self.kind == "bar":
            return np.minimum(1.5 * first - abs(u), self.width * second - abs(v))
        angle = np.arctan2(v, u)
        if self.kind == "polygon":
            return radius - np.hypot(u, v) * np.cos(angle % (2 * np.pi / self.corners) - np.pi / self.corners)
        if self.kind == "gear":
            return radius * (1 + self.teeth * np.tanh(3 * np.sin(self.corners * angle))) - np.hypot(u, v)
        crests = 1 + 0.35 * np.cos(2 * np.pi * u / max(5, radius / 4))
        return np.minimum(1.5 * first - abs(u), self.width * second * crests - abs(v))


@dataclass(frozen=True)
class Variation:
    """What differs between images of one program, as half widths or standard deviations."""

    turn: float  # radians
    shift: float
    zoom: float
    light: float  # share, of the whole and from side to side
    noise: float  # of 0..1, of a pixel
    ground: bool  # whether the texture behind the part moves


class Program:
    """A random product: ``program.image(number)`` is one image of it, uint8 (size, size, 3)."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.seed, self.ground = seed, Texture(rng, float(rng.choice([0.3, 1.0])))
        self.blur, self.grey = rng.uniform(0.3, 1.2), rng.random() < 0.35
        self.variation = Variation(
            turn=float(rng.choice(list(TURNS), p=list(TURNS.values()))),
            shift=float(rng.choice([1.0, 4.0, 20.0])),
            zoom=rng.uniform(0, 0.03),
            light=rng.uniform(0, 0.12),
            noise=rng.uniform(0.003, 0.025),
            ground=rng.random() < 0.7,
        )
        if rng.random() < 0.65:  # a part, with details on it
            sizes = [rng.uniform(45, 85), *(log_uniform(rng, 6, 40) for _ in range(rng.integers(1, 9)))]
        else:  # a surface, maybe with something on it
            sizes = [log_uniform(rng, 10, 80) for _ in range(rng.integers(0, 4))]
        self.shapes = [Shape(rng, size) for size in sizes]

    def image(self, number: int, size: int = 256) -> np.ndarray:
        """An image, uint8 (size, size, 3), that depends on the program's seed, the number and the size alone."""
        rng, change = np.random.default_rng((self.seed, number)), self.variation
        axis = (np.arange(size) + 0.5) * (UNITS / size) - UNITS / 2
        y, x = np.meshgrid(axis, axis, indexing="ij")
        turn, zoom = rng.uniform(-change.turn, change.turn), 1 + rng.normal(0, change.zoom)
        down, right = rng.normal(0, change.shift, 2)
        part_y = zoom * (np.cos(turn) * (y - down) + np.sin(turn) * (x - right))
        part_x = zoom * (np.cos(turn) * (x - right) - np.sin(turn) * (y - down))
        offset = rng.uniform(0, 500, 2) if change.ground else (0.0, 0.0)
        image = self.ground(rng, y + offset[0], x + offset[1])
        for shape in self.shapes:
            image = shape.paint(rng, image, part_y, part_x)
        slope = rng.normal(0, change.light, 2)
        image = image * (1 + rng.normal(0, change.light / 2) + (slope[0] * y + slope[1] * x)[..., None] / UNITS)
        blur = self.blur * size / UNITS
        image = ndimage.gaussian_filter(image, (blur, blur, 0)) + change.noise * rng.standard_normal(image.shape)
        if self.grey:
            image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
        return (255 * np.clip(image, 0, 1)).astype(np.uint8)
