"""Photographs, and what lies beside them and is none: masks, coordinates and depths, known by the names of folders."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vitlite.data.index import few
from vitlite.data.listing import path_list
from vitlite.files import StrPath, shown

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
    """(file of coordinates or depths, photograph beside it), by names such as ``0_depth.png`` and ``0.png``, or None.

    The photograph's name has no such word, or that for a photograph in its place: ``0_color.png``.
    """
    files = {(path.parent, path.stem.lower()): path for path in paths}
    for (folder, name), path in files.items():
        if found := _SURFACE.search(name):
            before, (first, last) = name[: found.start()], found.span(1)
            others = [before + name[last:], name[last:].lstrip(" _.-")]
            others += [name[:first] + word + name[last:] for word in sorted(PHOTOGRAPHS)]
            if photograph := next((files[folder, own] for own in others if (folder, own) in files), None):
                return path, photograph
    return None


def photographs(paths: Sequence[Path], given: StrPath | Iterable[StrPath]) -> tuple[list[Path], str]:
    """Those of some images that are to be scored, and what to say of the others; "" if there are none.

    The others lie in folders of masks (:data:`TRUTH`), or of coordinates or depths beside photographs, as in MVTec and
    MVTec 3D-AD. That counts for folders below those that are given, and if other images remain. A file that is given
    by its name counts as it is.

    Args:
        paths: what ``list_images`` gives for ``given``.
        given: files, folders and patterns.
    """
    named = {os.path.abspath(one) for one in path_list(given) if not os.path.isdir(one)}
    outer = {Path(os.path.abspath(_before_pattern(os.fspath(one)))) for one in path_list(given)}
    parents: dict[Path, list[Path]] = {}
    for path in paths:
        if os.path.abspath(path) not in named:
            parents.setdefault(path.parent, []).append(path)
    below: dict[Path, list[Path]] = {}  # the folders of images below those given, outer ones first
    names: dict[Path, Path] = {}  # what the user calls them
    for parent in parents:
        chain = [Path(os.path.abspath(parent)), *Path(os.path.abspath(parent)).parents]
        depth = next((depth for depth, folder in enumerate(chain) if folder in outer), 0)
        below[parent] = chain[:depth][::-1]
        names |= dict(zip(chain[:depth], [parent, *parent.parents]))
    folders = {folder for chain in below.values() for folder in chain}
    beside = {(folder.parent, folder.name.lower()) for folder in folders}
    found: dict[Path, int] = {}
    left: set[Path] = set()
    for parent, chain in below.items():
        for folder in chain:
            if _what(folder, beside):
                found[folder] = found.get(folder, 0) + len(parents[parent])
                left.update(parents[parent])
                break
    if not left or len(left) == len(paths):
        return list(paths), ""
    are, them = ("image is", "it") if len(left) == 1 else ("images are", "them")
    places = few([f"{shown(names[own])}{os.sep} ({count}, {_what(own, beside)})" for own, count in found.items()], 4)
    text = f"{len(left)} {are} left out, because no photographs lie in {places}; to score {them}, give that folder"
    return [path for path in paths if path not in left], text


def _before_pattern(given: str) -> str:
    """The folder that a path or a pattern is below: itself, or what stands before the first wildcard."""
    parts = Path(given).parts
    wild = [place for place, part in enumerate(parts) if re.search(r"[*?[]", part)]
    return given if os.path.lexists(given) or not wild else os.path.join(*parts[: wild[0]], "")


def _what(folder: Path, beside: set[tuple[Path, str]]) -> str:
    """What the images of a folder are if they are no photographs; "" if they may be."""
    name = folder.name.lower()
    if name in TRUTH:
        return "masks"
    if name in SURFACES and any((folder.parent, other) in beside for other in PHOTOGRAPHS):
        return "coordinates or depths"
    return ""
