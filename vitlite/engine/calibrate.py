"""Thresholds and the display scale, from good images, and the rate of false alarms that they promise."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from vitlite.answers import save_overlay
from vitlite.calibration import HELD_OUT, NO_PROMISE, TRAINED_ON, good_image, set_balanced, summarize
from vitlite.data import Sample
from vitlite.data.groups import MOST as MOST_COMPARED
from vitlite.data.groups import groups_of
from vitlite.data.photographs import list_defects
from vitlite.engine.checkpoint import refuse_other_scores
from vitlite.engine.detector import CALIBRATION_FILE, Compared, Detector, load_calibration
from vitlite.engine.settings import RunSettings, data_path
from vitlite.engine.split import given, held_out_share, known_defects, leave_out, refuse_good
from vitlite.errors import UserError
from vitlite.files import StrPath, below, counted, make_folder, shown, write_json
from vitlite.good_scores import GOOD_SCORES_FILE, SCORED_BY, Good, load_good_scores
from vitlite.images.known import CALIBRATED, KEY, TRAINED_KEY, TRAINING, Known, Strange
from vitlite.images.loading import Loaded, Unread, pixel_batches, skipping
from vitlite.images.reading import NO_ROOM, ImageError
from vitlite.images.scale import Reading
from vitlite.images.tiles import View
from vitlite.limits import Limits, check_area, check_limits, check_target, limits_for, limits_of
from vitlite.odd import FOLDER as ODD_FOLDER
from vitlite.odd import MOST_DRAWN, Odd, clear, find_odd, in_a_line, overlay_name
from vitlite.progress import Progress
from vitlite.verdict import all_small, judge

log = logging.getLogger(__name__)

MISSES_SHOWN = 5  # known defects that are named


Draw = Callable[[Sequence[Odd], dict[str, Any]], dict[str, str]]  # overlays of odd images: their names by file


def calibrate(
    run: StrPath,
    settings: RunSettings,
    good: Sequence[Good],
    *,
    source: str,
    made_by: Mapping[str, Any],
    draw: Draw,
    target_fpr: float | None = None,
    exact: bool = False,
    min_area: int = 0,
    bad: Sequence[Good] = (),
    known: Known | None = None,
    trained: Known | None = None,
) -> dict[str, Any]:
    """Write the calibration.json of a run from scored good images; returns its contents (docs/result-files.md).

    Args:
        source: where the images come from, in words. If training saw them, thresholds are too low; the file says so.
        made_by: what made the scores, as ``scored_by`` of a run says it.
        draw: makes overlays of odd images.
        target_fpr: the share of good images that may be called defective; default: that of the run's settings.
        exact: whether odd good images count as all others.
        min_area: is kept in the file; no threshold depends on it.
        bad: known defective images with their scores. If there are any, they set the thresholds for images too.
        known: what the images are that later ones are compared with; None: it is not known.
        trained: what those of training are; None: the same.
    Raises:
        UserError: a share outside (0, 1), or scores that are not finite.
    """
    target_fpr = settings.config.target_fpr if target_fpr is None else target_fpr
    check_target(target_fpr)
    scored = [*good, *bad]
    if not all(math.isfinite(value) for image in scored for value in (image.score, image.pixel_tail, image.median)):
        raise UserError(f"{run}: scores of images are not finite numbers, so there is no threshold; train again")
    odd = find_odd(good)
    result = summarize(good, target_fpr, source != TRAINED_ON, source, None if exact else odd)
    set_balanced(result, bad)
    result |= {"min_area": min_area, "black": settings.config.black, "white": settings.config.white}
    result[SCORED_BY] = made_by
    result |= {} if known is None else {KEY: known.as_json()}
    result |= {} if trained in (None, known) else {TRAINED_KEY: trained.as_json()}
    overlays = draw(odd[:MOST_DRAWN], result)
    for image in odd[:MOST_DRAWN]:
        log.warning("%s", in_a_line(image, run, overlays.get(image.file)))
    if len(odd) > MOST_DRAWN:
        log.warning("%d more odd good images: %s lists them all", len(odd) - MOST_DRAWN, Path(run) / CALIBRATION_FILE)
    result["odd_images"] = [image._asdict() | {"overlay": overlays.get(image.file)} for image in odd]
    for entry in [*result["good_images"], *result["odd_images"]]:
        entry["file"] = below(entry["file"], data_path(settings, run))
    write_json(Path(run) / CALIBRATION_FILE, result)
    return result


def score_good(detector: Detector, samples: Sequence[Sample], strange: Strange | None = None) -> list[Good]:
    """The images that can be read, scored, in the groups that training would find among those of each category.

    ``strange`` as for ``score_files`` of a detector.
    """
    compared = Compared(detector) if len(samples) <= MOST_COMPARED else None
    good: list[Good] = []
    read: list[Sample] = []
    with Progress("threshold", len(samples)) as progress:
        paths = [sample.path for sample in samples]
        found = (compared or detector).score_files(paths, keep_original=False, strange=strange)
        for loaded, pixels, score in skipping(found, log):
            sample = samples[loaded.index]
            good.append(good_image(sample.category, score, pixels, sample.path, loaded.seen_inside))
            read.append(sample)
            progress.step()
    rows = np.concatenate(compared.rows) if compared and read else None
    numbers = groups_of(read, rows, detector.settings.config.groups)
    return [image._replace(group=number) for image, number in zip(good, numbers)]


def draw_odd(
    map_of: Callable[[Loaded], np.ndarray],
    samples: Sequence[Sample],
    odd: Sequence[Odd],
    run: StrPath,
    calibration: dict[str, Any],
    reading: Reading,
    view: View,
) -> dict[str, str]:
    """Write overlays of odd images in the place of an earlier calibration's; their names by file.

    ``samples`` are theirs. ``map_of`` gives the map of one, in the size of what is seen of it.
    """
    clear(run)
    names = {}
    # Defects are outlined whatever the threshold: it may come from these images.
    limits = replace(limits_of(calibration), image=-math.inf)
    for found in pixel_batches([sample.path for sample in samples], view, 1, reading=reading, keep_original=True):
        if isinstance(found, Unread):
            log.warning("not drawn: %s", found.reason)
            continue
        (loaded,) = found.images
        sample, score = samples[loaded.index], odd[loaded.index].score
        name = overlay_name(loaded.index + 1, sample.category, sample.path)
        try:
            prediction = judge(loaded.full(map_of(loaded)), score, limits, inside=loaded.inside)
            make_folder(Path(run) / ODD_FOLDER)
            image = cast(np.ndarray, loaded.original)
            save_overlay(Path(run) / name, image, prediction, calibration["display"], loaded.inside)
        except MemoryError:
            log.warning("not drawn: %s", ImageError(loaded.path, NO_ROOM))
            continue
        names[shown(sample.path)] = name
    return names


def drawn_before(detector: Detector, odd: Sequence[Odd], source: str) -> dict[str, str]:
    """The names, by file, of overlays that training has drawn of odd images; those of other images are removed.

    They are still there if no calibration from other images than ``source`` came between.
    """
    try:
        earlier = str(load_calibration(detector.run).get("source"))
    except UserError:
        earlier = ""
    if not earlier.startswith(source):
        clear(detector.run)
        return {}
    folder = detector.run / ODD_FOLDER
    names = {path.name.partition("_")[2]: f"{ODD_FOLDER}/{path.name}" for path in folder.glob("*.png")}
    ends = {image.file: overlay_name(0, image.category, Path(image.file)).partition("_")[2] for image in odd}
    return {file: names[end] for file, end in ends.items() if end in names}


def recalibrate(
    detector: Detector,
    *,
    target_fpr: float | None = None,
    good: Sequence[StrPath] = (),
    without: Sequence[StrPath] = (),
    balance: Sequence[StrPath] = (),
    known: Sequence[StrPath] = (),
    min_area: int | None = None,
    exact: bool = False,
) -> dict[str, Any]:
    """Rewrite a run's calibration.json for another false-alarm rate or from other images; returns its contents.

    The arguments are the options of ``vitlite calibrate``, and the detector uses the new calibration from then on.

    Args:
        good: files, folders and patterns. Default: the images whose scores training kept (good_scores.json). Runs of
            version 0.1.0 kept none: then those are scored that training held out, which needs its data as it was.
        balance: known defects. A category without them keeps the threshold from its good images, as pixels do. A
            warning says that new defects are missed more often than these.
        known: known defects that change no threshold.
        exact: whether odd good images count as all others. By default the farthest, one or at most 1 image in 20,
            count no more than the highest of the others.
    Raises:
        UserError: a rate outside (0, 1) or together with ``balance``, an area below 0, a run that is not finished, data
            that is missing or has changed, images that the run was trained on, a file in ``without`` that is not among
            the good images, an image in ``balance`` or ``known`` that is a good one too, or a copy of it, no image of
            ``balance`` that can be read.
    """
    if target_fpr is not None:
        if balance:
            raise UserError("`target_fpr`: not together with `balance`, which promises no rate")
        check_target(target_fpr)
    if not (detector.run / CALIBRATION_FILE).exists():
        load_calibration(detector.run)  # says that training did not finish
    earlier, trained = earlier_facts(detector.run)
    images_are = trained
    min_area = earlier if min_area is None else check_area(min_area)
    run, settings = detector.run, detector.settings
    balance, known = (list_defects(own) if own else [] for own in (balance, known))
    defects = (*balance, *known)
    kept = None if good else load_good_scores(run, data_path(settings, run))
    if kept is not None:
        images, source, made_by = kept
        refuse_other_scores(made_by, detector.scored_by, run / GOOD_SCORES_FILE)
        before = source
        paths = leave_out([Path(image.file) for image in images], without)
        refuse_good(defects, paths)
        images = [image for image in images if Path(image.file) in paths]

        def draw(odd: Sequence[Odd], calibration: dict[str, Any]) -> dict[str, str]:
            return drawn_before(detector, odd, before)

    else:
        samples, source = (
            (given(detector, good), ", ".join(map(shown, good))) if good else (held_out_share(detector), HELD_OUT)
        )
        paths = leave_out([sample.path for sample in samples], without)
        refuse_good(defects, paths)
        samples = [sample for sample in samples if sample.path in paths]
        strange = detector.strange(known=trained, advice=CALIBRATED, whose=TRAINING)
        images = score_good(detector, samples, strange)
        strange.say()
        images_are = strange.together
        if not images:
            count = counted(len(samples), "good image")
            raise UserError(f"{source}: none of the {count} for the threshold is readable")

        def draw(odd: Sequence[Odd], calibration: dict[str, Any]) -> dict[str, str]:
            by_file = {shown(sample.path): sample for sample in samples}
            chosen = [by_file[image.file] for image in odd]
            return draw_odd(detector.map_of, chosen, odd, run, calibration, detector.reading, detector.view)

    if without:
        source = f"{source}, without {len(without)} of them"
    detector.calibration = calibrate(
        run,
        settings,
        images,
        source=source,
        made_by=detector.scored_by,
        draw=draw,
        target_fpr=target_fpr,
        exact=exact,
        min_area=min_area,
        bad=score_defects(detector, balance) if balance else (),
        known=images_are,
        trained=trained,
    )
    if balance:
        log.warning("misses of known defects are optimistic: they chose the threshold; new ones are missed more often")
    return detector.calibration


def earlier_facts(run: StrPath) -> tuple[int, Known | None]:
    """The smallest area of a defect, and what the images of training are, in a run's calibration.json.

    0 and None, with a warning, if the file cannot be used.
    """
    try:
        found = load_calibration(run)
        return limits_of(found).min_area, Known.of_training(found)
    except UserError as error:
        log.warning("%s; what it holds of a smallest area of defects and of training's images is not kept", error)
        return 0, None


def score_defects(detector: Detector, inputs: Sequence[StrPath]) -> list[Good]:
    """Known defective images, scored. ``UserError`` if none can be read."""
    samples = known_defects(detector, inputs)
    scored = score_good(detector, samples)
    if not scored:
        raise UserError(f"`balance`: no known defect is readable, of {counted(len(samples), 'image')}")
    return scored


def without_threshold(detector: Detector) -> list[str]:
    """A line about the categories that the calibration has no images of, for a run of several; none otherwise."""
    trained, calibrated = detector.settings.category.split(","), detector.calibration["categories"]
    left_out = [shown(name) for name in trained if name not in calibrated]
    if not left_out or len(trained) == 1:
        return []
    return [
        f"no threshold of its own: {', '.join(left_out)}; give good images of every category in a folder with its name"
    ]


def misses(detector: Detector, inputs: Sequence[StrPath]) -> list[str]:
    """How many known defective images the calibrated thresholds miss, in lines; the first ones that are missed by name.

    ``UserError`` if ``inputs`` stand for no image that can be read.
    """
    paths = list_defects(inputs)
    limits = limits_for(paths, detector.calibration, None)
    scores: list[tuple[float, bool, Path]] = []
    for loaded, pixels, score in skipping(detector.score_files(paths, keep_original=False), log):
        own = limits[loaded.index]
        small = own.min_area > 1 and all_small(loaded.full(pixels), loaded.height, loaded.width, own, loaded.inside)
        is_defect = score > own.image and not small
        scores.append((score, is_defect, loaded.path))
    if not scores:
        raise UserError(f"`defects`: none of the {len(paths)} images can be read")
    missed = [(score, path) for score, is_defect, path in sorted(scores, key=lambda one: one[0]) if not is_defect]
    area = f", with regions of fewer than {limits[0].min_area} pixels left out" if limits[0].min_area > 1 else ""
    lines = [f"known defects: {len(missed)} of {len(scores)} missed at the threshold{area}"]
    lines += [f"  missed: {shown(path)}, score {score:.6g}" for score, path in missed[:MISSES_SHOWN]]
    return lines


def set_thresholds(
    run: StrPath,
    *,
    image: float | None = None,
    pixel: float | None = None,
    min_area: int | None = None,
    category: str | None = None,
) -> Limits:
    """Write limits chosen by hand into a run's calibration.json; returns those that hold now. None: as it is.

    Thresholds are those of one ``category``, or of the run and of all its categories; ``min_area`` is the whole run's.
    ``UserError`` for one that is none, an unknown category, and a run without a calibration.
    """
    check_limits(None, image, pixel)
    result = load_calibration(run)
    limits_of(result, category)  # refuses an unknown category
    every = [result, *result["categories"].values()]
    # The only category of a run and the run itself are the same.
    for own in every if category is None or len(every) == 2 else [result["categories"][category]]:
        if image is not None:
            own |= {"image_threshold": image, **NO_PROMISE, "balance": None}
        if pixel is not None:
            own["pixel_threshold"] = pixel
    if min_area is not None:
        result["min_area"] = check_area(min_area)
    write_json(Path(run) / CALIBRATION_FILE, result)
    return limits_of(result, category)
