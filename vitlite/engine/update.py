"""New good images for a run that is trained: the settings of the run that follows it, and what it does with each image.

The new run begins with the weights of the earlier one. A method takes the new images as it takes those of a first
training: ``fit`` and ``finish`` see earlier and new ones together, and its stages train on, for a part of the steps.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vitlite.data import Dataset, Sample, list_images
from vitlite.data.copies import copies
from vitlite.engine.checkpoint import load_checkpoint
from vitlite.engine.detector import load_calibration
from vitlite.engine.settings import RunSettings, data_path, load_settings, refuse_other_network, with_regions_of
from vitlite.engine.split import Grouping, Split, folder_images, make_split, recorded, training_split
from vitlite.errors import UserError
from vitlite.files import StrPath, category_of, counted, shown
from vitlite.images.known import TRAINED_TOO, Known, Strange
from vitlite.methods.config import TrainingConfig, change
from vitlite.methods.kinds import kinds

log = logging.getLogger(__name__)

PART_OF_STEPS = 4  # an update trains for a quarter of the steps of a whole training
UPDATED = "new good images and those held out, each scored by a network that was trained without it"


def updated_settings(
    run: StrPath, good: Sequence[StrPath], changes: Mapping[str, object], data: StrPath | None = None
) -> RunSettings:
    """The settings of a run that takes ``good`` images besides those of a finished run, and begins with its weights.

    They are those of the run, with fewer steps and the share of false alarms that it is calibrated for, but for
    ``changes``. ``data`` is the new place of the run's own images, if they have moved. ``UserError`` if the run is not
    finished, or a change makes another network.
    """
    origin = load_settings(run)
    calibration = load_calibration(run)
    config = origin.config if origin.added else shortened(origin.config)
    asked = calibration.get("target_fpr") or config.target_fpr  # `calibrate` may have set it
    config = replace(config, target_fpr=asked)
    settings = replace(
        origin,
        data=os.path.realpath(data_path(origin, run) if data is None else data),
        config=change(config, changes),
        init_from=os.path.realpath(run),
        added=(*origin.added, *map(os.path.realpath, good)),
    )
    settings = with_regions_of(settings, origin)
    refuse_other_network(settings, "run")
    return settings


def shortened(config: TrainingConfig) -> TrainingConfig:
    """A config that trains for a part of the epochs and steps, at least one of those that are above 0."""
    lengths = [key for key in kinds(type(config)) if key == "steps" or key.endswith("epochs")]
    lengths.remove("warmup_epochs")
    return replace(config, **{key: -(-getattr(config, key) // PART_OF_STEPS) for key in lengths})


def with_added(dataset: Dataset, settings: RunSettings) -> Dataset:
    """The data of training with the images of ``settings.added`` that it does not have.

    An image belongs to the category that one of its folders is named after, if there are several. ``UserError`` if
    that is none, or a place has no images.
    """
    known = [sample.path for sample in (*dataset.train, *dataset.validation)]
    samples: list[Sample] = []
    for place in settings.added:
        there = set(map(str, known))
        new = [path for path in files_at(place) if str(path) not in there]
        again = set(copies(new, known))
        if again:
            log.warning("%s: %s left out, which the run has already", shown(place), counted(len(again), "image"))
        fresh = [path for path in new if path not in again]
        samples += [Sample(path, category_for(path, dataset), "train", "good", 0, None) for path in fresh]
        known += fresh
    return replace(dataset, train=(*dataset.train, *samples))


def files_at(place: str) -> list[Path]:
    """The good images of a folder, a file or a pattern. ``UserError`` if there are none, or defects among them."""
    return folder_images(place) if os.path.isdir(place) else list_images([place])


def category_for(path: Path, dataset: Dataset) -> str:
    """The category of a new image. ``UserError`` if it is not known."""
    category = category_of(path, dataset.categories)
    if not category:
        names = ", ".join(map(shown, dataset.categories))
        raise UserError(
            f"`good`: {shown(path)} is of no known category; put it into a folder named after one ({names})"
        )
    return category


def new_ones(settings: RunSettings, samples: Sequence[Sample], old: Split) -> list[int]:
    """Which samples are of ``added`` and not in the earlier run. ``UserError`` if there are none."""
    added = {str(path) for place in settings.added for path in files_at(place)}
    known = old.parts
    new = [i for i, sample in enumerate(samples) if i not in known and str(sample.path) in added]
    if not new:
        raise UserError(f"`good={shown(settings.added[-1])}`: the run has all of these images already; give others")
    return new


def grown_split(settings: RunSettings, samples: Sequence[Sample], root: Path, grouping: Grouping) -> Split:
    """The split of an updated run.

    What the earlier run trained on trains again. What it held out stays so, because its weights have not seen it. New
    images are split as those of a first training, and further networks begin with the same weights, which have seen
    none of them. A new image that belongs to a group of earlier ones goes where they are. ``UserError`` if an image of
    the earlier run is missing, or there is no new one.
    """
    old = earlier_split(settings, samples, root)
    new = new_ones(settings, samples, old)
    groups: dict[int, int] = {}
    for category in dict.fromkeys(samples[i].category for i in new):
        own = [i for i in sorted([*old.parts, *new]) if samples[i].category == category]
        groups |= {i: len(groups) + int(number) for i, number in zip(own, grouping(own))}
    held, trained = ({groups[i] for i in part if i in groups} for part in (old.held, old.train))
    free = [i for i in new if groups[i] not in held | trained]
    joined = [i for i in new if groups[i] in trained - held]
    train = [*old.train, *joined]
    out = [*old.held, *(i for i in new if groups[i] in held)]
    split = make_split(
        [samples[i] for i in free],
        replace(settings.config, train_images=0),
        settings.seed,
        lambda rows: [groups[free[row]] for row in rows],
    )
    train += [free[row] for row in split.train]
    out += [free[row] for row in split.held]
    grown = Split(sorted(train), sorted(out), [[free[row] for row in fold] for fold in split.folds], groups)
    log.info(
        "new images: %d of %d set the threshold; %d only train, because they belong to the group of an image that the "
        "run was trained on",
        len(set(new) & set(grown.scored)),
        len(new),
        len(joined),
    )
    return grown


def compare_new(settings: RunSettings, samples: Sequence[Sample], root: Path, known: Sequence[Known]) -> None:
    """Warn of new images that are clearly others than those of the earlier run; ``known`` is what each sample is."""
    earlier = Known.of_training(load_calibration(settings.init_from))
    squeezed = not (settings.config.tile or settings.regions)
    strange = Strange(earlier, squeezed, advice=TRAINED_TOO)
    for i in new_ones(settings, samples, earlier_split(settings, samples, root)):
        strange.add(known[i], samples[i].path)
    strange.say()


def earlier_split(settings: RunSettings, samples: Sequence[Sample], root: Path) -> Split:
    """What the run that is updated trained on and held out. ``UserError`` if one of these images is missing."""
    run = Path(settings.init_from)
    if (found := recorded(run, samples, root)) is not None:
        return replace(found, folds=[], groups={})
    before = load_settings(run)
    at = {str(sample.path): i for i, sample in enumerate(samples)}
    before = replace(before, data=settings.data)
    trained, held = training_split(before, run, load_checkpoint(run, before.method)["fingerprint"])

    def places(part: Sequence[Sample]) -> list[int]:
        return [at[str(sample.path)] for sample in part if str(sample.path) in at]

    return Split(places(trained), places(held))
