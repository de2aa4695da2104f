"""Which good images are held out for the threshold, which of the others train, and how to recognise them later."""

import contextlib
import hashlib
import os
import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vitlite.data import Dataset, Sample, list_images, open_dataset, scan
from vitlite.data.index import few
from vitlite.engine.settings import RunSettings, data_folder, data_path
from vitlite.errors import UserError
from vitlite.files import StrPath, shown
from vitlite.images.archives import split_entry
from vitlite.images.scale import Reading
from vitlite.limits import category_of
from vitlite.methods.config import TrainingConfig

if TYPE_CHECKING:
    from vitlite.engine.detector import Detector


def split_good(dataset: Dataset, config: TrainingConfig, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, held out) of a data set's good images, by ``holdout`` and ``train_images`` of a config.

    A category with validation images of its own holds those out and trains on all others; the rest hold out a share.
    """
    apart = {s.category for s in dataset.validation}
    _, held = hold_out([s for s in dataset.train if s.category not in apart], config.holdout, seed)
    out = set(map(id, held))
    train = [s for s in dataset.train if id(s) not in out]
    return draw_few(train, config.train_images, seed), [*held, *dataset.validation]


def hold_out(samples: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split training samples into (train, held out), per category, at random but fixed by the seed.

    A category with two or more images has at least one on each side; a share of 0 holds nothing out.
    """
    train, held = [], []
    for category in dict.fromkeys(s.category for s in samples):
        own = [s for s in samples if s.category == category]
        count = min(max(round(share * len(own)), 1), len(own) - 1) if share > 0 else 0
        # As bytes, because a folder's name need not be valid text; for valid text both seed alike.
        place = f"{seed}/{category}".encode("utf-8", "surrogateescape")
        chosen = set(random.Random(place).sample(range(len(own)), count))
        train += [s for i, s in enumerate(own) if i not in chosen]
        held += [s for i, s in enumerate(own) if i in chosen]
    return train, held


def good_split(settings: RunSettings, run: Path) -> tuple[Path, list[Sample], list[Sample]]:
    """(root, trained, held out) of a run's data of training as it is now. ``UserError`` if it is missing."""
    try:
        dataset = open_dataset(data_folder(settings, run), settings.category or None)
    except UserError as error:
        raise UserError(f"{error.marked} (the data of training)") from error
    return dataset.root, *split_good(dataset, settings.config, settings.seed)


def training_split(settings: RunSettings, run: Path, known: str) -> tuple[list[Sample], list[Sample]]:
    """(trained, held out) as training split its images; ``known`` is the fingerprint that it took.

    ``UserError`` if the data is missing or has changed, so that the split is no longer known.
    """
    root, trained, held = good_split(settings, run)
    # The split depends on which files there are: with one more or less, a trained image may pass for one held out.
    # Training took the fingerprint of those that it could read; reading them all again is slow and seldom needed.
    readings: tuple[Callable[[], Iterable[Sample]], ...] = (
        lambda: trained,
        lambda: scan(trained, Reading(settings.config.image_scale))[0],
    )
    for samples in readings:
        if fingerprint(root, [sample.path for sample in samples()]) == known:
            return trained, held
    raise UserError(
        f"{settings.data}: images were added, removed, renamed or changed since training, so that it is no longer "
        "known which were held out"
    )


def leave_out(samples: list[Sample], files: Sequence[StrPath]) -> list[Sample]:
    """The samples without some files: each a path, or the end of one that fits a single image.

    ``UserError`` names a file that is not among them, or that may be several.
    """
    left = {os.path.realpath(sample.path): sample for sample in samples}
    for file in files:
        end = os.sep + os.path.normpath(file)
        fits = [path for path in left if path == os.path.realpath(file)] or [
            path for path in left if path.endswith(end)
        ]
        if len(fits) != 1:
            what = f"may be {len(fits)}" if fits else "not one"
            names = few([shown(path) for path in fits or left])
            raise UserError(
                f"`without={shown(file)}`: {what} of the {len(samples)} good images for the threshold ({names})"
            )
        del left[fits[0]]
    return list(left.values())


def held_out_share(detector: "Detector") -> list[Sample]:
    """The good images that training kept apart. ``UserError`` if there are none, or it is not known which."""
    settings, run = detector.settings, detector.run
    try:
        if not good_split(settings, run)[2]:
            raise UserError(f"{run}: training held no good images out (holdout = {settings.config.holdout})")
        return training_split(settings, run, detector.fingerprint)[1]
    except UserError as error:
        raise UserError(f"{error.marked}; give `good` images that it has not seen") from error


def given(detector: "Detector", inputs: Sequence[StrPath]) -> list[Sample]:
    """The good images that the inputs stand for, as samples. ``UserError`` for those that the run was trained on."""
    categories = detector.settings.category.split(",")
    found: dict[str, Path] = {}
    for path in inputs:
        for image in folder_images(path) if os.path.isdir(path) else list_images([path]):
            found.setdefault(os.path.abspath(image), image)
    samples = [Sample(path, category_of(path, categories), "train", "good", 0, None) for path in found.values()]
    refuse_trained(detector, samples)
    return samples


def known_defects(detector: "Detector", inputs: Sequence[StrPath], good: Sequence[Sample]) -> list[Sample]:
    """The defective images that the inputs stand for, as samples. ``UserError`` if one is among the good ones too."""
    categories, paths = detector.settings.category.split(","), list_images(inputs)
    both = copies(paths, [sample.path for sample in good])
    if both:
        raise UserError(
            f"`balance`: some known defects are also among the good images for the threshold "
            f"({few([str(path) for path in both], 3)}); take them out of one of the two"
        )
    return [Sample(path, category_of(path, categories), "test", "defect", 1, None) for path in paths]


def folder_images(folder: StrPath) -> list[Path]:
    """A plain folder of good images, by the rules of training: a data set with defects among them is refused."""
    dataset = open_dataset(Path(folder), "all", need_train=False)
    if dataset.layout != "folder":
        raise UserError(f"`good={shown(folder)}`: is a data set ({dataset.title}); give a folder of good images alone")
    return [sample.path for sample in dataset.train]


def refuse_trained(detector: "Detector", samples: Sequence[Sample]) -> None:
    """``UserError`` for images that were trained on, copies included: they score too low.

    They are found if the data of training is still there.
    """
    trained = perhaps_trained(detector)
    seen = copies([sample.path for sample in samples], [sample.path for sample in trained])
    if seen:
        raise UserError(
            f"`good`: the run was trained on {len(seen)} of the {len(samples)} images, first {shown(seen[0])}; "
            "give others, or leave `good` out to take those that training held out"
        )


def perhaps_trained(detector: "Detector") -> list[Sample]:
    """What was trained on; all good images if the split is no longer known; none if the data is missing."""
    settings, run = detector.settings, detector.run
    folder = data_path(settings, run)
    if folder.is_dir():
        with contextlib.suppress(UserError):
            return training_split(settings, run, detector.fingerprint)[0]
        with contextlib.suppress(UserError):
            _, trained, held = good_split(settings, run)
            return trained + held
    return []


def draw_few(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """At most ``count`` samples of each category (0: all), at random but fixed by the seed, in their order."""
    if not count:
        return samples
    order = random.Random(f"{seed}/few").sample(samples, len(samples))
    taken: dict[str, list[Sample]] = {}
    for sample in order:
        taken.setdefault(sample.category, []).append(sample)
    chosen = {id(sample) for own in taken.values() for sample in own[:count]}
    return [sample for sample in samples if id(sample) in chosen]


def fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """Digest of the files that a run trains on: their names below ``root``, their contents and their order."""
    whole = hashlib.sha256()
    for path in paths:
        name = str(Path(path).relative_to(root)).encode("utf-8", "surrogateescape")
        whole.update(name + b"\0" + (digest(path) or b"") + b"\n")
    return whole.hexdigest()


def copies(paths: Sequence[Path], originals: Sequence[Path]) -> list[Path]:
    """Those of ``paths`` that hold the same bytes as one of ``originals``, whatever their names."""
    # Only files of equal size can be equal, which spares reading most of them.
    sizes = {_size(path) for path in paths}
    digests = {digest(path) for path in originals if _size(path) in sizes} - {None}
    return [path for path in paths if digests and digest(path) in digests]


def _size(path: Path) -> int:
    """The size of a file in bytes; -1 for a missing file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def digest(path: Path) -> bytes | None:
    """SHA-256 of an image's bytes; for an image inside an archive file, that file's digest and the image's number.

    None if it cannot be read: that equals nothing that was trained on.
    """
    entry = split_entry(path)
    try:
        if entry is None:
            return hashlib.sha256(Path(path).read_bytes()).digest()
        file, number = entry
        status = os.stat(file)
        return _file_digest(file, status.st_mtime_ns, status.st_size) + str(number).encode()
    except OSError:
        return None


@lru_cache(maxsize=16)
def _file_digest(file: Path, _modified: int, _size: int) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()
