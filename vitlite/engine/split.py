"""Which good images are held out for the threshold, which of the others train, and how to recognise them later."""

import contextlib
import json
import logging
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitlite.data import Dataset, Sample, list_images, open_dataset, scan
from vitlite.data.copies import copies, equal_files, fingerprint
from vitlite.data.index import GOOD, few, grouped
from vitlite.data.layouts import PLAIN
from vitlite.data.parting import deal, draw_few, draw_groups, hold_out, seed_text
from vitlite.data.photographs import list_defects
from vitlite.engine.settings import RunSettings, data_folder, data_path
from vitlite.errors import UserError
from vitlite.files import DAMAGED, StrPath, below, category_of, counted, shown, write_json
from vitlite.images.scale import Reading
from vitlite.methods.config import TrainingConfig

if TYPE_CHECKING:
    from vitlite.engine.detector import Detector

log = logging.getLogger(__name__)

SPLIT_FILE = "split.json"
SPLIT_SCHEMA = 1
TRAIN, HELD, FOLD = "train", "held out", "fold"  # parts of a split; what is held out counts as the first fold


@dataclass(frozen=True)
class Split:
    """What training does with each good image; lists of their indices."""

    train: list[int]
    held: list[int]
    folds: list[list[int]] = field(default_factory=list)  # of what trains: a further network trains on all others
    groups: dict[int, int] = field(default_factory=dict)  # number by image: images of a group are not parted

    @property
    def parts(self) -> dict[int, str]:
        """The name of each image's part; an image that is not used has none."""
        names = dict.fromkeys(self.train, TRAIN) | dict.fromkeys(self.held, HELD)
        for number, fold in enumerate(self.folds, 2):
            names |= dict.fromkeys(fold, f"{FOLD} {number}")
        return names

    @property
    def scored(self) -> list[int]:
        """What sets the threshold: images that some network has not seen."""
        return sorted([*self.held, *(index for fold in self.folds for index in fold)])

    @property
    def parted(self) -> set[int]:
        """The groups with images in more than one part."""
        names = self.parts
        places = grouped((group, names[index]) for index, group in self.groups.items())
        return {group for group, own in places.items() if len(set(own)) > 1}


Grouping = Callable[[list[int]], Iterable[int]]  # the numbers of the groups of some images, by their indices


def make_split(samples: Sequence[Sample], config: TrainingConfig, seed: int, grouping: Grouping) -> Split:
    """The split of readable good images, ``validation`` images among them, by the groups that ``grouping`` gives.

    Validation images are held out. Otherwise ``folds`` parts are made, if there are few enough images for them, of
    which the first is held out, or ``holdout`` of each category is held out. With ``train_images`` single images are
    drawn, and no group is looked for.
    """
    given = [i for i, sample in enumerate(samples) if sample.split == "validation"]
    if config.train_images:
        return random_split(samples, config, seed)
    count = len(samples)
    cross = config.folds and not given and (not config.folds_below or count < config.folds_below)
    train: list[int] = []
    held, numbers = list(given), dict[int, int]()
    folds: list[list[int]] = [[] for _ in range(config.folds - 1 if cross else 0)]
    apart = {samples[i].category for i in given}
    for category in dict.fromkeys(sample.category for sample in samples):
        own = [i for i, sample in enumerate(samples) if sample.category == category and sample.split != "validation"]
        if category in apart or not (cross or config.holdout):
            train += own
            continue
        numbers |= {i: len(numbers) + int(number) for i, number in zip(own, grouping(own))}
        groups = grouped((numbers[i], i) for i in own)
        rng = random.Random(seed_text(seed, category))
        if cross and len(own) > 1:
            first, *others = deal(list(groups.values()), min(config.folds, len(own)), rng)
            for fold, part in zip(folds, others):
                fold += part
        else:
            first = [] if cross else sorted(draw_groups(list(groups.values()), config.holdout, rng))
        held += first
        out = set(first)
        train += [i for i in own if i not in out]
    return Split(train, held, [fold for fold in folds if fold], numbers)


def random_split(samples: Sequence[Sample], config: TrainingConfig, seed: int) -> Split:
    """The split by :func:`split_samples`, which runs without a split.json have."""
    at = {id(sample): i for i, sample in enumerate(samples)}
    train, held = ([at[id(sample)] for sample in part] for part in split_samples(samples, config, seed))
    return Split(train, held)


def save_split(run: Path, split: Split, samples: Sequence[Sample], root: Path, data: Path) -> None:
    """Write split.json (docs/result-files.md)."""
    images = [
        {
            "file": below(samples[index].path, root),
            "category": samples[index].category,
            "group": split.groups.get(index),
            "part": part,
        }
        for index, part in sorted(split.parts.items())
    ]
    write_json(run / SPLIT_FILE, {"schema": SPLIT_SCHEMA, "root": os.path.relpath(root, data), "images": images})


def read_split(run: Path) -> dict[str, Any] | None:
    """The contents of a run's split.json; None without one. ``UserError`` if it is damaged or of a newer version."""
    path = run / SPLIT_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] > SPLIT_SCHEMA:
            raise UserError(f"{path}: written by a newer vitlite (schema {found['schema']}); upgrade to read it")
        for image in found["images"]:
            image |= {key: str(image[key]) for key in ("file", "category", "part")}
        return {**found, "root": str(found["root"])}
    except FileNotFoundError:
        return None
    except DAMAGED as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}); train again") from None


def recorded(run: Path, samples: Sequence[Sample], root: Path) -> Split | None:
    """The split that split.json holds, of the images that are there now; None without that file.

    ``UserError`` if one of them is missing.
    """
    found = read_split(run)
    if found is None:
        return None
    at = {below(sample.path, root): i for i, sample in enumerate(samples)}
    split, folds = Split([], []), dict[str, list[int]]()
    for image in found["images"]:
        if image["file"] not in at:
            raise UserError(f"{root / image['file']}: a good image of this run, and not there any more; restore it")
        index = at[image["file"]]
        (split.held if image["part"] == HELD else split.train).append(index)
        if image["part"].startswith(FOLD):
            folds.setdefault(image["part"], []).append(index)
        if image.get("group") is not None:
            split.groups[index] = image["group"]
    split.folds.extend(folds[name] for name in sorted(folds, key=lambda name: (len(name), name)))
    return split


def recorded_samples(settings: RunSettings, run: Path) -> tuple[Path, list[Sample], list[Sample]] | None:
    """(root, trained, held out) by split.json; None without that file. ``UserError`` if the data is missing."""
    found = read_split(run)
    if found is None:
        return None
    root = Path(os.path.normpath(data_path(settings, run) / found["root"]))
    if not root.is_dir():
        raise UserError(f"{shown(root)}: no such folder (the data of training)")
    parts: tuple[list[Sample], list[Sample]] = ([], [])
    for image in found["images"]:
        sample = Sample(root / image["file"], image["category"], "train", GOOD, 0, None)
        parts[image["part"] == HELD].append(sample)
    return root, *parts


def split_good(dataset: Dataset, config: TrainingConfig, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, held out) of a data set's good images, as runs without a split.json did it: see :func:`split_samples`."""
    return split_samples([*dataset.train, *dataset.validation], config, seed)


def split_samples(samples: Sequence[Sample], config: TrainingConfig, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, held out) of good images at random, by ``holdout`` and ``train_images`` of a config.

    A category with validation images of its own holds those out and trains on all others; the rest hold out a share.
    """
    validation = [s for s in samples if s.split == "validation"]
    others = [s for s in samples if s.split != "validation"]
    apart = {s.category for s in validation}
    _, held = hold_out([s for s in others if s.category not in apart], config.holdout, seed)
    out = set(map(id, held))
    train = [s for s in others if id(s) not in out]
    return draw_few(train, config.train_images, seed), [*held, *validation]


def good_split(settings: RunSettings, run: Path) -> tuple[Path, list[Sample], list[Sample]]:
    """(root, trained, held out) of a run's data of training as it is now. ``UserError`` if it is missing."""
    if (known := recorded_samples(settings, run)) is not None:
        return known
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
    # Without a split.json the split depends on which files there are: with one more or less, a trained image may pass
    # for one held out.
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


def leave_out(paths: Sequence[Path], files: Sequence[StrPath]) -> set[Path]:
    """The paths without some files: each a path, or the end of one that fits a single image.

    ``UserError`` names a file that is not among them, or that may be several.
    """
    left = {os.path.realpath(path): path for path in paths}
    for file in files:
        end = os.sep + os.path.normpath(file)
        fits = [path for path in left if path == os.path.realpath(file)] or [
            path for path in left if path.endswith(end)
        ]
        if len(fits) != 1:
            what = f"may be {len(fits)}" if fits else "not one"
            names = few([shown(path) for path in fits or left])
            raise UserError(
                f"`without={shown(file)}`: {what} of the {len(paths)} good images for the threshold ({names})"
            )
        del left[fits[0]]
    return set(left.values())


def held_out_share(detector: "Detector") -> list[Sample]:
    """The good images that training kept apart. ``UserError`` if there are none, or it is not known which."""
    settings, run = detector.settings, detector.run
    try:
        if not good_split(settings, run)[2]:
            raise UserError(f"{run}: no good_scores.json, and training held no good images out")
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


def known_defects(detector: "Detector", inputs: Sequence[StrPath]) -> list[Sample]:
    """The defective images that the inputs stand for, as samples."""
    categories = detector.settings.category.split(",")
    return [Sample(path, category_of(path, categories), "test", "defect", 1, None) for path in list_defects(inputs)]


def refuse_good(defects: Sequence[StrPath], good: Iterable[Path]) -> None:
    """``UserError`` if some known defects are among the good images for the threshold too, copies included."""
    both = copies(list_images(defects), sorted(good)) if defects else []
    if both:
        raise UserError(
            f"{few([shown(path) for path in both], 3)}: given as known defects, and also among the good images for the "
            "threshold; take them out of one of the two"
        )


def folder_images(folder: StrPath) -> list[Path]:
    """A plain folder of good images, by the rules of training: a data set with defects among them is refused."""
    dataset = open_dataset(Path(folder), "all", need_train=False)
    if dataset.layout != PLAIN:
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


def warn_of_copies(detector: "Detector", dataset: Dataset) -> None:
    """Warn of test images that are copies of others of their category, or of good images of training."""

    def warn(what: str, names: list[str], so: str) -> None:
        are = "is a copy" if len(names) == 1 else "are copies"
        images = counted(len(names), "test image")
        log.warning("%s: %s %s of %s: %s; %s", shown(dataset.root), images, are, what, few(names, 3), so)

    twice = []
    for category in dataset.categories:
        own = [sample.path for sample in dataset.test if sample.category == category]
        names = [below(path, dataset.root) for path in own]
        twice += [f"{names[i]} = {names[first]}" for i, first in enumerate(equal_files(own)) if first != i]
    if twice:
        warn("another one", twice, "each counts; remove them")
    with contextlib.suppress(UserError):
        known = recorded_samples(detector.settings, detector.run)
        good = [sample.path for part in known[1:] for sample in part] if known else []
        if seen := [below(path, dataset.root) for path in copies([sample.path for sample in dataset.test], good)]:
            warn("good images that this run learned from", seen, "the results are too good")
