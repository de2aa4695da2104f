"""Odd good images: which ones score far above the others, and the folder of a run that has an overlay of each."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from vitlite.data.index import grouped
from vitlite.files import StrPath, remove, shortened, shown

FOLDER = "odd"  # of the overlays, in a run
FAR_OUT = 6  # deviations above the median, of an odd good image
FEWEST = 8  # images that tell what is usual
MOST_DRAWN = 8  # overlays: those of the farthest


class Scored(Protocol):
    """A good image with its score."""

    @property
    def file(self) -> str: ...
    @property
    def category(self) -> str: ...  # "" if it is not known
    @property
    def score(self) -> float: ...


class Odd(NamedTuple):
    """A good image whose score is far above those of its category: it may show a defect."""

    file: str
    category: str
    score: float
    median: float  # of the scores of its category
    deviations: float  # above the median


def find_odd(images: Sequence[Scored]) -> list[Odd]:
    """The odd ones among good images, the farthest first."""
    found = []
    for name, own in grouped((image.category, image) for image in images).items():
        scores = np.array([image.score for image in own])
        median = float(np.median(scores))
        spread = 1.4826 * float(np.median(np.abs(scores - median)))  # the deviation, if most scores are normal
        for image in own if len(own) >= FEWEST else ():
            if image.score > median + FAR_OUT * spread > median:
                found.append(Odd(image.file, name, image.score, median, (image.score - median) / spread))
    return sorted(found, key=lambda image: -image.deviations)


def in_a_line(image: Odd, run: StrPath, overlay: str | None) -> str:
    """What a person is told about an odd image, with the name of its overlay below the run, if it has one."""
    return (
        f"{image.file}: an odd good image: its score {image.score:.4g} is {image.deviations:.1f} deviations above the "
        f"median {image.median:.4g}; if it is defective, calibrate without it"
        + (f"; overlay: {shown(Path(run) / overlay)}" if overlay else "")
    )


def overlay_name(rank: int, category: str, path: Path) -> str:
    """The name of an odd image's overlay, below the run: its rank from 1 tells it from others of the same name."""
    return f"{FOLDER}/{rank}_{shortened(f'{category}_{path.stem}' if category else path.stem)}.png"


def clear(run: StrPath) -> None:
    """Remove the overlays of an earlier calibration, and their folder if it holds nothing else."""
    folder = Path(run) / FOLDER
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if re.fullmatch(r"\d+_.*\.png", path.name):
            remove(path)
    with contextlib.suppress(OSError):  # somebody else's files are in it
        folder.rmdir()
