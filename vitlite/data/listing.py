"""Which files of a folder are images, in an order that is the same everywhere."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from vitlite.data.index import Sample
from vitlite.errors import UserError
from vitlite.files import StrPath, counted, shown
from vitlite.images.archives import split_entry
from vitlite.images.loading import each
from vitlite.images.reading import FULL_RANGE, ImageError, read_noted
from vitlite.images.scale import Reading

# fmt: off
IMAGE_EXTENSIONS = frozenset((
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff",
    ".webp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif",
    ".apng", ".mpo",
))
"""Extensions of image files, in lower case, with the dot."""
NOT_READ = frozenset((
    ".arw", ".cr2", ".cr3", ".dcm", ".dicom", ".dng", ".exr", ".heic", ".heif", ".hif", ".jxl", ".nef", ".orf",
    ".psd", ".raf", ".raw", ".rw2", ".tga",
))
"""Those of images in formats that are not read."""
_SYSTEM = frozenset((
    "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "__macosx", "lost+found",
    "system volume information",
))  # folders that file servers and systems make: thumbnails, and files that were deleted
# fmt: on
_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple:
    """Sorts 2.png before 10.png; the name itself decides between equals such as 1.png and 01.png."""
    parts = _DIGITS.split(unicodedata.normalize("NFC", name))
    return tuple((0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(parts)), name


def is_hidden(name: str) -> bool:
    """Whether a file or folder is nothing of the user's: its name begins with a dot, or is one that a system gives."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_image_name(name: str) -> bool:
    """Whether a file's name is that of an image: by its extension, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def is_not_read(name: str) -> bool:
    """Whether a file's name is that of an image whose format is not read."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in NOT_READ


def entries(folder: StrPath) -> tuple[list[str], list[str], list[str]]:
    """Names inside a folder in natural order: sub-folders, images (by extension), and others with the hidden ones.

    A link that leads nowhere counts as a file, so that a missing image is reported.
    """
    folders: list[str] = []
    images: list[str] = []
    others: list[str] = []
    for entry in _scan(folder):
        if is_hidden(entry.name):
            others.append(entry.name)
        elif _is_folder(entry):
            folders.append(entry.name)
        else:
            (images if is_image_name(entry.name) else others).append(entry.name)
    for names in (folders, images, others):
        names.sort(key=natural_key)
    return folders, images, others


def sub_folders(folder: StrPath) -> list[str]:
    """The first part of ``entries`` alone: much faster if a folder holds very many files."""
    names = [entry.name for entry in _scan(folder) if not is_hidden(entry.name) and _is_folder(entry)]
    return sorted(names, key=natural_key)


def walk(folder: StrPath) -> tuple[list[Path], int]:
    """Every image below a folder in natural order, and the number of other files.

    Follows links to folders but enters each real folder once, so loops end.
    """
    folder = Path(folder)
    found: list[Path] = []
    ignored = 0
    for current, images, others in _each_folder(folder):
        found += [current / name for name in images]
        ignored += len(others)
    found.sort(key=lambda path: [natural_key(part) for part in path.relative_to(folder).parts])
    return found, ignored


def _each_folder(folder: Path, *, readable: bool = False) -> Iterator[tuple[Path, list[str], list[str]]]:
    """A folder and those below it, with the names of their images and of other files; each real folder once.

    With ``readable`` those alone that are there and can be read.
    """
    seen: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            identity = _identity(current)
            if identity in seen:
                continue
            seen.add(identity)
            folders, images, others = entries(current)
        except UserError:
            if readable:
                continue
            raise
        yield current, images, others
        pending += [current / name for name in reversed(folders)]


def not_read(folders: Iterable[StrPath]) -> str:
    """What to say of images below some folders whose formats are not read; "" if there are none."""
    kinds = Counter(
        os.path.splitext(name)[1].lower()
        for folder in folders
        for _, _, others in _each_folder(Path(folder), readable=True)
        for name in filter(is_not_read, others)
    )
    if not kinds:
        return ""
    total, named = sum(kinds.values()), ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    are, them = ("is", "it") if total == 1 else ("are", "them")
    images = f"{counted(total, 'image')} {are} left out, because the format is not read ({named})"
    return f"{images}; save {them} as PNG, TIFF or JPEG"


def path_list(paths: StrPath | Iterable[StrPath]) -> list[StrPath]:
    """One path, or several, as a list."""
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def list_images(paths: StrPath | Iterable[StrPath]) -> list[Path]:
    """The images that a user's list of files, folders (with everything below them) and glob patterns stands for.

    A file that is named itself is taken whatever its extension; folders and patterns give only names that look like
    images and are not hidden. Keeps the order given, natural order within a folder or pattern, and each file once.
    Raises UserError for a path that matches nothing.
    """
    found: dict[str, Path] = {}
    for given in path_list(paths):
        matches = _matches(os.fspath(given))
        if not matches:
            why = not_read([given]) if os.path.isdir(given) else ""
            raise UserError(
                f"{shown(given)}: {why or 'no image there; give image files, folders or patterns such as parts/*.png'}"
            )
        for path in matches:
            found.setdefault(os.path.abspath(path), path)
    if not found:
        raise UserError("no image given; name image files, folders or patterns such as 'parts/*.png'")
    return list(found.values())


def _matches(given: str) -> list[Path]:
    try:
        if os.path.isdir(given):
            return walk(given)[0]
        if os.path.lexists(given) or split_entry(given):
            return [Path(given)]
    except ValueError:  # a zero byte in the name
        return []
    if not re.search(r"[*?[]", given):
        return []
    found = []
    for path in sorted(_expand(given), key=lambda path: [natural_key(part) for part in path.parts]):
        if path.is_dir():
            found += walk(path)[0]
        elif is_image_name(path.name):
            found.append(path)
    return found


def _expand(pattern: str) -> list[Path]:
    """pathlib's glob, because its ** does not follow links and so cannot loop, without hidden files and folders."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if re.search(r"[*?[]", part))
    base = Path(*parts[:first]) if first else Path()
    try:
        found = list(base.glob(str(Path(*parts[first:]))))
    except (ValueError, NotImplementedError, OSError) as error:
        raise UserError(f"{shown(pattern)}: not a usable pattern ({error})") from error
    return [path for path in found if not any(map(is_hidden, path.relative_to(base).parts))]


def _scan(folder: StrPath) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            yield from scan
    except OSError as error:
        raise UserError(f"{shown(folder)}: the folder cannot be listed ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise UserError(f"{shown(folder)}: the folder cannot be read ({error.strerror})") from error
    return status.st_dev, status.st_ino


def scan(samples: Iterable[Sample], reading: Reading = FULL_RANGE) -> tuple[list[Sample], list[tuple[Sample, str]]]:
    """Decode every image once and drop it again: the samples that can be read, and the others with the reason.

    Both lists keep the order given. Decodes on threads (Pillow releases the interpreter lock).

    Args:
        samples: the images.
        reading: how the run reads images that they are for: its scale, and the most pixels.
    """
    samples = list(samples)
    good, bad = [], []
    for sample, reason in zip(samples, each(lambda sample: _complaint(sample, reading), samples)):
        if reason is None:
            good.append(sample)
        else:
            bad.append((sample, reason))
    return good, bad


def _complaint(sample: Sample, reading: Reading) -> str | None:
    try:
        read_noted(sample.path, reading)
    except ImageError as error:
        return error.reason
    return None
