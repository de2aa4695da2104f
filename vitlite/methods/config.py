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
from vitlite.images.tiles import Size, View, as_size, fitted, sides
from vitlite.limits import check_target
from vitlite.methods.kinds import AUTO, KEEP, NONE, ImageSize, SizeKind, Switch, kept_side, kinds

SCORES = ("max", "top1", "top10", "mean", "std", "rms")  # what an image's score takes from its map
PLACES = ("none", "mean", "scaled", "absolute")  # how a place is compared with good images there
# Of what comes to a network: to compute the features of 8 such images takes about 20 GB of memory.
MOST_SIDE = 4096  # of a square, or as many pixels in another shape
MOST_PLACES = 256**2  # of its tokens, or of its feature map: attention compares every two of them

Settings = TypeVar("Settings", bound="TrainingConfig")


@dataclass(frozen=True)
class TrainingConfig:
    """What the ``Config`` of every method has: how images come in and how the optimiser runs.

    vitlite/methods/meaning.py says what each setting means. A comment beside a field gives a source or a reason;
    ``(ours)`` marks what no paper has.

    Raises ``UserError``, which names the setting, for a value of another type or one that no training can use.
    """

    image_size: ImageSize = 256
    tile: int = 0  # without image_size beside it, that becomes the same (ours)
    overlap: float = 0.25  # (ours)
    epochs: int = 100
    steps: int = 0
    max_epochs: int = 0  # each stage has its part
    patience: int = 0  # (ours)
    batch_size: int = 8
    accumulate: int = 1  # batch norms take the statistics of a part, and SIVT draws a split for each part
    # adam: weight decay is an L2 term. muon: the momentum of a matrix is orthogonalised (Jordan et al., 2024).
    # stableadamw: AMSGrad, and a tensor's step is shortened if its second moment lags behind (Wortsman et al., 2023).
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    lr: float = 1e-4
    weight_decay: float = 0.01
    schedule: str = "constant"
    last_lr: float = 0.0
    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    average: float = 0.0  # (ours)
    clip_norm: float = 0.0
    holdout: float = 0.1  # (ours; the papers keep none)
    folds: int = 0  # the first part is held out, so that all images serve the threshold (ours)
    folds_below: int = 0  # (ours)
    groups: str = ""  # (ours)
    target_fpr: float = 0.05  # (ours)
    train_images: int = 0  # of those that are not held out
    precision: str = "float32"
    compile: bool = False
    score: str = "max"
    places: str = "none"  # (ours)
    compare_maps: Switch = False  # (ours)
    # Mirrored noise has twice the variance at the edge; even draws it towards the mean of the map, until it has the
    # variance of the inside (ours).
    edge: str = "mirror"
    black: float | None = None
    white: float | None = None

    trains: ClassVar[bool] = True  # False: there is nothing to optimise, and settings of the optimiser do nothing
    meanings: ClassVar[Mapping[str, str]] = {}  # of fields that vitlite/methods/meaning.py does not have
    own_scores: ClassVar[tuple[str, ...]] = ()  # of the method, beside those of a map
    # Settings that do nothing unless another one is on ("tile") or has one of some values ("score=weighted|auto").
    needs: ClassVar[dict[str, str]] = {
        "overlap": "tile",
        "last_lr": "schedule=cosine",
        "max_epochs": "steps",
        "folds_below": "folds",
        "compare_maps": "places=mean|scaled|absolute|auto",
    }
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
        if self.tile and self.tile < 8:  # before image_size, which is the tile's unless it is given
            self.refuse("tile", "must be 0, for no tiles, or at least 8")
        self.at_least(8, "image_size")
        if math.prod(self.image_shape) > MOST_SIDE**2:
            self.refuse("tile" if self.tile == self.image_size else "image_size", too_large())
        if self.tile and kept_side(self.image_size):
            self.refuse("image_size", "tiles have no shape to keep; give numbers, or leave out `tile`")
        if not 0 <= self.overlap <= 0.75:
            self.refuse("overlap", "must be from 0 to 0.75")
        self.at_least(0, "steps", "max_epochs", "weight_decay", "warmup_epochs", "warmup_steps", "last_lr", "clip_norm")
        self.at_least(0, "train_images", "folds_below", "patience")
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

    def refuse_idle(self, given: Collection[str]) -> None:
        """Refuse one of the settings ``given`` that does nothing, because of another one."""
        for key in (key for key in given if key in self.needs and getattr(self, key)):
            name, _, values = self.needs[key].partition("=")
            held = getattr(self, name)
            if str(held) not in values.split("|") if values else not held:
                self.refuse(key, f"does nothing without {name}" + f"={values.replace('|', ', ')}" * bool(values))
        for key in ("folds", "groups"):
            if key in given and getattr(self, key) and self.train_images:
                self.refuse(key, "does nothing with train_images, which draws single images and holds a share out")

    @property
    def drawn_decide(self) -> bool:
        """Whether drawn defects decide about something when training ends."""
        return AUTO in (self.score, self.places, self.compare_maps)

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
    def image_text(self) -> str:
        """``image_size`` as it is written."""
        return ",".join(map(str, self._numbers("image_size")))

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

    def limit_places(self, count: int, key: str, mend: str) -> None:
        """Refuse a field that makes more tokens, or places of a feature map, than a network can have."""
        if count > MOST_PLACES:
            self.refuse(key, f"makes {count} places, of which a network has at most {MOST_PLACES}; give {mend}")

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


@dataclass(frozen=True)
class CropConfig(TrainingConfig):
    """The settings of a method that can look at the middle of an image alone."""

    image_size: ImageSize = 256
    crop: int = 0  # a defect beyond the middle is not found: the map has its lowest value there

    def check(self) -> None:
        super().check()
        if self.crop and not isinstance(self.image_size, int):
            self.refuse("crop", "must be 0 unless image_size is one number")
        if self.crop and self.crop < self.image_side:
            self.refuse("crop", f"must be 0, or at least image_size={self.image_size}")
        if self.crop > MOST_SIDE:
            self.refuse("crop", too_large())
        if self.crop and self.tile:
            self.refuse("crop", "must be 0 with tiles")

    @property
    def view(self) -> View:
        return View(self.crop) if self.crop else super().view

    @property
    def beyond(self) -> tuple[int, int]:
        """Pixels before and after the middle, along each axis."""
        beyond = self.crop - self.image_side if self.crop else 0
        return beyond // 2, beyond - beyond // 2


def too_large() -> str:
    """Why a size of what comes to a network is refused."""
    return f"a network sees at most {MOST_SIDE} x {MOST_SIDE} pixels, or as many in another shape; give less"


def check_transformer(config: Any, depth: str = "depth") -> None:
    """Refuse what a ViT encoder cannot be: fields image_size, patch, dim, heads, mlp_ratio, and its depth."""
    config.at_least(1, "patch", "dim", depth, "heads")
    config.above(0, "mlp_ratio")
    config.divides("patch", "image_size")
    tokens = math.prod(config.image_shape) // config.patch**2
    config.limit_places(tokens, "patch", f"a larger one, or a smaller image_size than {config.image_text}")
    config.divides("heads", "dim")


def change(config: Settings, changes: Mapping[str, object], *, idle: bool = False) -> Settings:
    """A config with some fields changed. A text is read as the command line's, whatever the field holds.

    ``image_size=keep`` means as many pixels as the config had.
    With a tile, and no ``image_size``, the network sees the original's pixels: ``image_size`` is the tile's side.
    A number of epochs above 0 takes the place of ``steps``; either removes a preset's ``max_epochs`` and ``patience``.
    A number of folds removes its ``folds_below``, a share held out its folds, and ``warmup_epochs`` its
    ``warmup_steps``. Raises UserError for an unknown field, a value that the config refuses and, unless ``idle``, a
    field that does nothing because of others.
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
    # A limit is no number of epochs, and a stage of 0 epochs leaves the others as long as they are.
    if any(key.endswith("epochs") and key not in ("warmup_epochs", "max_epochs") and values[key] for key in values):
        values.setdefault("steps", 0)
    if "steps" in values:
        values.setdefault("max_epochs", 0)
        values.setdefault("patience", 0)
    if "folds" in values:
        values.setdefault("folds_below", 0)
    if "holdout" in values:
        values.setdefault("folds", 0)
    if "warmup_epochs" in values:
        values.setdefault("warmup_steps", 0)
    changed = replace(config, **values)
    if not idle:
        changed.refuse_idle(changes.keys())
    return changed
