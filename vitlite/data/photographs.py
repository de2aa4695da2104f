"""Photographs, and what lies beside them and is none: masks, coordinates and depths, known by names."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vitlite.data.index import few, grouped, masks_among, says_good, stem
from vitlite.data.listing import list_images, path_list
from vitlite.errors import UserError
from vitlite.files import StrPath, shown

log = logging.getLogger(__name__)

MASK, SURFACE = "masks", "coordinates or depths"  # what is no photograph
# Of MVTec 3D-AD and sets like it: names of folders, in lower case.
PHOTOGRAPHS = frozenset(("rgb", "color", "colour"))
SURFACES = frozenset(("xyz", "depth", "depths"))
TRUTH = frozenset(("ground_truth", "groundtruth", "gt"))  # names of folders of masks that stand for nothing else
_SURFACE = re.compile(rf"(?:^|[ _.-])({'|'.join(sorted(SURFACES))})(?=$|[ _.-])", re.IGNORECASE)  # a word of a name


def surfaces_beside(folders: Iterable[Path]) -> tuple[Path, Path] | None:
    """(folder of coordinates or depths, folder of photographs beside it): the first such two; None: there are none."""
    folders = list(folders)
    for folder in folders:
        for other in folders if folder.name.lower() in SURFACES else ():
            if other.parent == folder.parent and other.name.lower() in PHOTOGRAPHS:
                return folder, other
    return None


def surface_beside(paths: Iterable[Path]) -> tuple[Path, Path] | None:
    """(file of coordinates or depths, photograph beside it) by names such as ``0_depth.png`` and ``0.png``, or None."""
    for folder, names in grouped((path.parent, path.name) for path in paths).items():
        for surface, photograph in _surfaces(names).items():
            return folder / surface, folder / photograph
    return None


def _surfaces(names: Iterable[str]) -> dict[str, str]:
    """Those names of a folder's files that are of coordinates or depths: {surface: photograph beside it}.

    The photograph's name has no such word, or that for a photograph in its place: ``0_color.png``.
    """
    words = {name: (own, found) for name in names if (found := _SURFACE.search(own := stem(name).lower()))}
    files = {stem(name).lower(): name for name in names} if words else {}
    surfaces = {}
    for name, (own, found) in words.items():
        before, (first, last) = own[: found.start()], found.span(1)
        others = [before + own[last:], own[last:].lstrip(" _.-")]
        others += [own[:first] + word + own[last:] for word in sorted(PHOTOGRAPHS)]
        if photograph := next((files[other] for other in others if other in files), None):
            surfaces[name] = photograph
    return surfaces


def files_apart(names: Sequence[str]) -> dict[str, str]:
    """What those files of a folder are that are no photographs, by their names beside those of others."""
    return dict.fromkeys(_surfaces(names), SURFACE) | dict.fromkeys(masks_among(names)[0], MASK)


def folders_apart(names: Iterable[str]) -> dict[str, str]:
    """What those folders beside each other hold whose images are no photographs, by their names."""
    lower = {name: name.lower() for name in names}
    beside = not PHOTOGRAPHS.isdisjoint(lower.values())
    masks = {name: MASK for name, own in lower.items() if own in TRUTH}
    return masks | {name: SURFACE for name, own in lower.items() if beside and own in SURFACES}


def list_photographs(given: StrPath | Iterable[StrPath]) -> list[Path]:
    """As ``list_images``, without what is no photograph (:func:`photographs`), of which a warning is logged."""
    found, apart = photographs(list_images(given), given)
    if apart:
        log.warning(apart)
    return found


def list_defects(given: StrPath | Iterable[StrPath]) -> list[Path]:
    """The images that ``given`` stands for as known defects.

    ``UserError`` if one lies in a folder below it that is called as people call folders of good images.
    """
    paths = list_photographs(given)
    for chain in folders_below([path.parent for path in paths], given).values():
        if found := next((folder for folder in chain if says_good(folder.name)), None):
            raise UserError(
                f"`defects`: {shown(found)} has a name of good images; give the folders of defects, or that one itself"
            )
    return paths


def photographs(paths: Sequence[Path], given: StrPath | Iterable[StrPath]) -> tuple[list[Path], str]:
    """Those of the images of ``list_images(given)`` that are to be scored, and what to say of the others, or "".

    The others lie in folders of masks (:data:`TRUTH`), or of coordinates or depths beside photographs, as in MVTec and
    MVTec 3D-AD, or beside the photograph after which they are named. That counts below folders that are given and in
    them, and if other images remain. A file that is given by its name counts as it is.
    """
    named = {os.path.abspath(one) for one in path_list(given) if not os.path.isdir(one)}
    inside = grouped((path.parent, path) for path in paths if os.path.abspath(path) not in named)
    below = folders_below(inside, given)
    beside = grouped((one.parent, one.name) for one in {folder for chain in below.values() for folder in chain})
    apart = {around / name: what for around, names in beside.items() for name, what in folders_apart(names).items()}
    found: Counter[tuple[Path, str]] = Counter()
    left: set[Path] = set()
    for parent, images in inside.items():
        if outer := [folder for folder in below[parent] if folder in apart]:
            found[outer[0], apart[outer[0]]] += len(images)
            left.update(images)
            continue
        for name, what in files_apart([path.name for path in images]).items():
            found[parent, f"{what} by name"] += 1
            left.add(parent / name)
    if not left or len(left) == len(paths):
        return list(paths), ""
    one = len(left) == 1
    are, none, them = (
        ("image is", "it is no photograph", "it") if one else ("images are", "they are no photographs", "them")
    )
    places = few([f"{shown(folder)}{os.sep} ({count}, {what})" for (folder, what), count in found.items()], 4)
    text = f"{len(left)} {are} left out, because {none}: {places}; to score {them}, give that folder or file itself"
    return [path for path in paths if path not in left], text


def folders_below(parents: Iterable[Path], given: StrPath | Iterable[StrPath]) -> dict[Path, list[Path]]:
    """Those of each folder of images and the folders around it that lie below what is given, outer ones first."""
    outer = {os.path.abspath(_before_pattern(os.fspath(one))) for one in path_list(given)}
    found = {}
    for parent in parents:
        chain = [parent, *parent.parents]
        depth = next((depth for depth, folder in enumerate(chain) if os.path.abspath(folder) in outer), 0)
        found[parent] = chain[:depth][::-1]
    return found


def _before_pattern(given: str) -> str:
    """The folder that a path or a pattern is below: itself, or what stands before the first wildcard."""
    parts = Path(given).parts
    wild = [place for place, part in enumerate(parts) if re.search(r"[*?[]", part)]
    return given if os.path.lexists(given) or not wild else os.path.join(*parts[: wild[0]], "")
