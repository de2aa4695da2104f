"""What the fields of a method's config hold, and how the command line and config.toml write it."""

import operator
import os
import re
import types
import typing
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from vitlite.images.tiles import Size, as_size

NONE = "none"
AUTO = "auto"
KEEP = "keep"  # for a size of images: the shape of the images
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
SEVERAL = {bool: "true or false with commas", int: "numbers with commas", float: "numbers with commas"}


@dataclass(frozen=True)
class Kind:
    """What a field holds: a value of type ``item``, or a tuple of them, and maybe None."""

    item: type
    several: bool
    optional: bool

    def __str__(self) -> str:
        text = SEVERAL.get(self.item, "words with commas") if self.several else WORDS[self.item]
        return f"{text}, or {NONE}" if self.optional else text

    def parse(self, text: str) -> Any:
        """The value that a text of the command line stands for. Raises ValueError."""
        if self.optional and text == NONE:
            return None
        if self.several:
            return tuple(self._parse_item(part.strip()) for part in text.split(",") if part.strip())
        return self._parse_item(text)

    def _parse_item(self, text: str) -> Any:
        if self.item is float and re.fullmatch(r"[+-]?[0-9]{1,15}", text):
            return int(text)  # the config makes it a float; until then a message shows it as it was given
        if self.item is not bool:
            return self.item(text)
        if text.lower() not in TRUTH:
            raise ValueError(text)
        return TRUTH[text.lower()]

    def convert(self, value: object) -> Any:
        """A value of Python or TOML as the field holds it. Raises TypeError for a value of another type."""
        if self.optional and value in (None, NONE):
            return None
        if self.several and isinstance(value, (list, tuple)):
            return tuple(self._convert_item(part) for part in value)
        if self.several:
            raise TypeError
        return self._convert_item(value)

    def _convert_item(self, value: object) -> Any:
        if isinstance(value, bool) or self.item is bool:
            if not (isinstance(value, bool) and self.item is bool):
                raise TypeError
            return value
        if self.item is int and isinstance(value, Integral):
            return operator.index(value)
        if self.item is float and isinstance(value, Real):
            return float(value)
        if self.item is str and isinstance(value, (str, os.PathLike)):
            return os.fspath(value)
        raise TypeError


ImageSize = Size | str  # also "keep,N": the shape of the images, with about as many pixels as N x N


@dataclass(frozen=True)
class SizeKind(Kind):
    """A field that holds one number, of a square, or (height, width); with ``keeps`` also what ``ImageSize`` has."""

    keeps: bool = False

    def __str__(self) -> str:
        kept = f", {KEEP}, or {KEEP},N" if self.keeps else ""
        return f"a whole number, {'' if self.keeps else 'or '}two with a comma (height, width){kept}"

    def parse(self, text: str) -> Any:
        """As of any kind. ``keep`` alone stays: see ``change``."""
        words = [word.strip() for word in text.split(",")]
        if self.keeps and words[0] == KEEP:
            return ",".join(words)
        return self._sides([int(word) for word in words])

    def convert(self, value: object) -> Any:
        """As of any kind."""
        if isinstance(value, str) and self.keeps and re.fullmatch(KEEP + ",[1-9][0-9]{0,17}", value):
            return value
        if isinstance(value, (list, tuple)):
            return self._sides([self._convert_item(side) for side in value])
        return self._convert_item(value)

    def _sides(self, numbers: list[int]) -> Size:
        if len(numbers) not in (1, 2):
            raise ValueError(numbers)
        return as_size((numbers[0], numbers[-1]))


Switch = bool | str  # also "auto": training decides


@dataclass(frozen=True)
class SwitchKind(Kind):
    """A field that is true, false or "auto"."""

    def __str__(self) -> str:
        return f"true, false or {AUTO}"

    def parse(self, text: str) -> Any:
        """As of any kind."""
        return AUTO if text == AUTO else super().parse(text)

    def convert(self, value: object) -> Any:
        """As of any kind."""
        return AUTO if value == AUTO else super().convert(value)


def kept_side(size: ImageSize) -> int | None:
    """The N of "keep,N"; None for any other size."""
    return int(size.removeprefix(f"{KEEP},")) if isinstance(size, str) else None


def kinds(config: type) -> dict[str, Kind]:
    """What each field of a config's class holds, from the annotations."""
    hints = typing.get_type_hints(config)
    return {field.name: _kind(hints[field.name]) for field in fields(config)}


def _kind(annotation: Any) -> Kind:
    if annotation in (Size, ImageSize):
        return SizeKind(int, False, False, keeps=annotation == ImageSize)
    if annotation == Switch:
        return SwitchKind(bool, False, False)
    optional = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    if optional:
        (annotation,) = (part for part in typing.get_args(annotation) if part is not types.NoneType)
    several = tuple in (annotation, typing.get_origin(annotation))
    item = (*typing.get_args(annotation), int)[0] if several else annotation
    if item not in WORDS:
        raise TypeError(f"a field of a config cannot hold {annotation}")
    return Kind(item, several, optional)
