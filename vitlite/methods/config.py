"""The settings of a method: a frozen dataclass that checks itself whenever one is made, also by ``replace()``.

A field holds a bool, int, float or str, a tuple of one of these, or None; its annotation says which: ``lr: float``,
``channels: tuple[int, ...]``, ``scale: float | None``. The command line writes a tuple with commas and None as
``none``, and config.toml writes None as ``"none"``.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, NoReturn, Self, TypeVar, cast

from vitlite.errors import UserError
from vitlite.images.scale import Scale, as_scale
from vitlite.images.tiles import Size, View, as_size, sides
from vitlite.limits import check_target
from vitlite.methods.kinds import KEEP, NONE, ImageSize, SizeKind, kept_side, kinds

AUTO = "auto"
SCORES = ("max", "top1", "top10", "mean", "std")  # what an image's score takes from its map
PLACES = ("none", "mean", "scaled")  # how the values at a place are compared with those of good images there

Settings = TypeVar("Settings", bound="TrainingConfig")


@dataclass(frozen=True)
class TrainingConfig:
    """What the ``Config`` of every method has: how images come in and how the optimiser runs.

    Raises ``UserError``, which names the setting, for a value of another type or one that no training can use.
    """

    image_size: ImageSize = 256  # pixels: of a square, or height and width; or "keep,N": see shaped()
    # Above 0: the network sees tiles with a height of so many pixels of the original image and the shape of image_size,
    # to which each is resized, and not the whole image. Without image_size beside it, that becomes the same (ours).
    tile: int = 0
    overlap: float = 0.25  # share of a tile that the next one covers too, at least (ours)
    epochs: int = 100  # passes over the training images
    steps: int = 0  # above 0: the number of epochs that comes nearest to this number of optimiser steps
    max_epochs: int = 0  # above 0: at most as many, whatever ``steps`` says; each stage has its part
    batch_size: int = 8  # images per optimiser step
    # Parts of a batch that are computed one after the other: less memory, the same step. Exceptions: batch norms take
    # the statistics of a part, and SIVT draws a split for each part.
    accumulate: int = 1
    # adamw | adam (weight decay then is an L2 term) | muon (the momentum of a matrix is orthogonalised, Jordan et al.,
    # 2024; what is no matrix has adamw) | stableadamw (AMSGrad, and a tensor's step is shortened if its second moment
    # lags behind, Wortsman et al., 2023).
    optimizer: str = "adamw"
    beta1: float = 0.9  # of the optimiser: decay of the mean gradient
    beta2: float = 0.999  # of the optimiser: decay of the mean squared gradient
    lr: float = 1e-4  # peak learning rate
    weight_decay: float = 0.01  # on matrices only
    schedule: str = "constant"  # after warm-up: constant | cosine (to last_lr)
    last_lr: float = 0.0  # with schedule=cosine: the learning rate at the end
    warmup_epochs: float = 0.0  # linear from 0
    warmup_steps: int = 0  # above 0: so many steps in place of warmup_epochs
    average: float = 0.0  # above 0: the weights at the end are an exponential average with this decay a step (ours)
    clip_norm: float = 0.0  # largest gradient norm; 0 does not clip
    holdout: float = 0.1  # share of the good training images kept for the threshold (ours; the papers keep none)
    # From 2 on: the good images are dealt to as many parts. The first is held out, and each other part is scored by a
    # further network that trains without it, so that all images serve the threshold (ours).
    folds: int = 0
    folds_below: int = 0  # above 0: only with fewer good images; otherwise ``holdout`` (ours)
    groups: str = ""  # regular expression: images whose names agree in it are never parted; empty: by likeness (ours)
    target_fpr: float = 0.05  # share of good images that may be called defective: sets the threshold (ours)
    train_images: int = 0  # at most this number of a category's other good images, drawn by the seed; 0: all
    precision: str = "float32"  # of the forward and backward passes: float32 | bfloat16 | auto
    compile: bool = False  # torch.compile the loss
    # What an image's score takes from its map: max | top1 | top10 | mean | std | auto, or a method's own.
    score: str = "max"
    places: str = "none"  # for the score, each place against good images there: none | mean | scaled | auto (ours)
    # What the filter of the map does at the edge: mirror | even. Mirrored noise has twice the variance there; even
    # draws it towards the mean of the map, until it has the variance of the inside (ours).
    edge: str = "mirror"
    # The numbers in files of more than 8 bits that become 0 and 255, for all images of the run; without them training
    # learns them from its images. 8-bit files keep 0 to 255.
    black: float | None = None
    white: float | None = None

    trains: ClassVar[bool] = True  # False: there is nothing to optimise, and settings of the optimiser do nothing
    meanings: ClassVar[Mapping[str, str]] = {}  # of fields that vitlite/methods/meaning.py does not have
    own_scores: ClassVar[tuple[str, ...]] = ()  # of the method, beside those of a map
    # Fields that 0.1.0 had: {name: (the field that took its place, {its value: the value of that field})}.
    renamed: ClassVar[dict[str, tuple[str, dict[Any, Any]]]] = {}

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that an earlier version wrote to config.toml, as this version has them."""
        found = dict(values)
        for old, (new, meaning) in cls.renamed.items():
            if old in found:
                value = found.pop(old)
                found[new] = meaning.get(str(value), value)  # a value that it never had is refused as it is
        return found

    def __post_init__(self) -> None:
        values = {}
        for key, kind in kinds(type(self)).items():
            try:
                values[key] = kind.convert(getattr(self, key))
            except (TypeError, ValueError):
                self.refuse(key, f"must be {kind}")
            if isinstance(kind, SizeKind):
                object.__setattr__(self, key, values[key])
        self.check()  # before the conversion of the others, so that a message shows a value as it was given
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def check(self) -> None:
        """Refuse values that no training can use. A method's config extends it and calls ``super().check()``."""
        self.at_least(1, "epochs", "batch_size", "accumulate")
        self.at_least(8, "image_size")
        if self.tile and self.tile < 8:
            self.refuse("tile", "must be 0, for no tiles, or at least 8")
        if self.tile and kept_side(self.image_size):
            self.refuse("image_size", "tiles have no shape to keep; give numbers, or leave out `tile`")
        if not 0 <= self.overlap <= 0.75:
            self.refuse("overlap", "must be from 0 to 0.75")
        self.at_least(0, "steps", "max_epochs", "weight_decay", "warmup_epochs", "warmup_steps", "last_lr", "clip_norm")
        self.at_least(0, "train_images", "folds_below")
        self.above(0, "lr")
        if self.last_lr > self.lr:
            self.refuse("last_lr", f"must be at most lr={self.lr}")
        for key, value in vars(self).items():
            numbers = value if isinstance(value, (list, tuple)) else (value,)
            # An infinite clip_norm leaves gradients as they are.
            if key != "clip_norm" and not all(math.isfinite(n) for n in numbers if isinstance(n, Real)):
                self.refuse(key, "must be finite")
        check_target(self.target_fpr)
        for key in ("holdout", "beta1", "beta2", "average"):
            if not 0 <= getattr(self, key) < 1:
                self.refuse(key, "must be at least 0 and below 1")
        self.one_of("schedule", ("constant", "cosine"))
        self.one_of("precision", ("float32", "bfloat16", "auto"))
        self.one_of("optimizer", ("adamw", "adam", "muon", "stableadamw"))
        self.one_of("score", (*self.own_scores, *SCORES, AUTO))
        self.one_of("places", (*PLACES, AUTO))
        self.one_of("edge", ("mirror", "even"))
        if self.folds < 0 or self.folds == 1:
            self.refuse("folds", "must be 0, or at least 2")
        try:
            re.compile(self.groups)
        except (re.error, RecursionError, OverflowError) as error:
            self.refuse("groups", f"not a regular expression ({error})")
        as_scale(*(None if value == NONE else value for value in (self.black, self.white)))

    @property
    def image_scale(self) -> Scale | None:
        """The numbers that become 0 and 255; None: the full range of a file's type."""
        return as_scale(self.black, self.white)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) of what comes to the network; until ``keep`` is decided, of a square with as many pixels."""
        kept = kept_side(self.image_size)
        return (kept, kept) if kept else sides(cast(Size, self.image_size))

    @property
    def image_side(self) -> int:
        """That of a square with about as many pixels."""
        return round(math.sqrt(math.prod(self.image_shape)))

    @property
    def keeps(self) -> bool:
        """Whether ``image_size`` waits for the shape of the images."""
        return kept_side(self.image_size) is not None

    @property
    def side_multiple(self) -> int:
        """What both sides of ``image_size`` are multiples of if ``keep`` chooses them."""
        return int(getattr(self, "patch", 8))

    def shaped(self, ratio: float) -> Self:
        """The config for images with a height of ``ratio`` times their width, in the place of one that ``keeps``."""
        return replace(self, image_size=fitted(self.image_shape[0], ratio, self.side_multiple))

    @property
    def view(self) -> View:
        """What the network sees of an image."""
        return View(as_size(self.image_shape), self.tile, self.overlap)

    @property
    def cell(self) -> float:
        """Side of what the network tells apart, in pixels of image_size: a smaller defect is hardly seen."""
        return getattr(self, "patch", 4)

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise the ``UserError`` that names a field with its value."""
        value = getattr(self, key)
        shown = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        if isinstance(value, str) and kinds(type(self))[key].item is not str and not value.startswith(KEEP):
            shown = repr(value)  # a text in the place of a number
        raise UserError(f"`{key}={shown}`: {why}")

    def at_least(self, least: float, *keys: str) -> None:
        """Refuse a field whose value is below ``least`` or NaN."""
        for key in keys:
            if not all(number >= least for number in self._numbers(key)):
                finite = " and finite" if isinstance(getattr(self, key), float) else ""
                self.refuse(key, f"must be at least {least}{finite}")

    def above(self, bound: float, *keys: str) -> None:
        """Refuse a field whose value is not above ``bound``, or infinite."""
        for key in keys:
            if not bound < getattr(self, key) < math.inf:
                self.refuse(key, f"must be above {bound} and finite")

    def one_of(self, key: str, allowed: Collection[str]) -> None:
        """Refuse a field whose value is not one of those allowed."""
        if getattr(self, key) not in allowed:
            self.refuse(key, f"not one of {', '.join(allowed)}")

    def divides(self, key: str, whole: str) -> None:
        """Refuse a field whose value does not divide that of the field ``whole``, of a size both its sides."""
        if any(number % getattr(self, key) for number in self._numbers(whole)):
            self.refuse(key, f"does not divide {whole}={','.join(map(str, self._numbers(whole)))}")

    def _numbers(self, key: str) -> tuple[Any, ...]:
        """The value of a field; of a size that is no square both sides."""
        value = getattr(self, key)
        if key == "image_size":
            value = as_size(self.image_shape)
        return value if isinstance(value, tuple) else (value,)


def fitted(side: float, ratio: float, multiple: int) -> tuple[int, int]:
    """(height, width): multiples with about as many pixels as a square, the height ``ratio`` times the width."""
    stretch = math.sqrt(ratio)
    height, width = (max(1, round(length / multiple)) * multiple for length in (side * stretch, side / stretch))
    return height, width


def check_transformer(config: Any, depth: str = "depth") -> None:
    """Refuse what a ViT encoder cannot be: fields image_size, patch, dim, heads, mlp_ratio, and its depth."""
    config.at_least(1, "patch", "dim", depth, "heads")
    config.above(0, "mlp_ratio")
    config.divides("patch", "image_size")
    config.divides("heads", "dim")


def change(config: Settings, changes: Mapping[str, object]) -> Settings:
    """A config with some fields changed. A text is read as the command line's, whatever the field holds.

    ``image_size=keep`` means as many pixels as the config had.
    With a tile, and no ``image_size``, the network sees the original's pixels: ``image_size`` is the tile's side.
    A number of epochs takes the place of ``steps``, either removes a preset's ``max_epochs``, and a number of folds its
    ``folds_below``. Raises UserError for an unknown field, or a value that the config
    refuses.
    """
    known = kinds(type(config))
    values: dict[str, Any] = dict(changes)
    for key, value in changes.items():
        if key not in known:
            raise UserError(f"`{key}`: no such setting; there are {', '.join(known)}")
        if isinstance(value, str):
            try:
                values[key] = known[key].parse(value.strip())
            except ValueError:
                raise UserError(f"`{key}={value.strip()}`: must be {known[key]}") from None
    if values.get("image_size") == KEEP:
        values["image_size"] = f"{KEEP},{config.image_side}"
    if values.get("tile") and "image_size" not in values:
        values["image_size"] = values["tile"]
    if any(key.endswith("epochs") and key != "warmup_epochs" for key in values):
        values.setdefault("steps", 0)
    if "steps" in values:
        values.setdefault("max_epochs", 0)
    if "folds" in values:
        values.setdefault("folds_below", 0)
    return replace(config, **values)
