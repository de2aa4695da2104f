"""Scoring labelled test images with a detector, or by a folder of maps.

Whoever makes the maps, a category becomes a :class:`~vitlite.results.Scored`, which results.py measures.
"""

import logging
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import vitlite
from vitlite.data import Dataset, ImageError, Sample, open_dataset, read_mask, with_mask_rules
from vitlite.data.index import few
from vitlite.data.map_files import (
    LAYOUT,
    Problems,
    blank,
    earlier_maps,
    find_maps,
    remove_maps,
    save_map,
    save_maps,
    truth,
)
from vitlite.engine.settings import data_folder
from vitlite.engine.split import warn_of_copies
from vitlite.errors import UserError
from vitlite.files import StrPath, shown
from vitlite.images.known import Strange
from vitlite.images.loading import LeftOut, Loaded, Unread, each
from vitlite.images.maps import MapError, read_map
from vitlite.limits import Limits, limits_of
from vitlite.predictor import Predictor
from vitlite.progress import Progress
from vitlite.results import Scored, Values, collect, summarize_category, warn_of_replacing
from vitlite.verdict import all_small

if TYPE_CHECKING:
    from vitlite.engine.detector import Detector

log = logging.getLogger(__name__)

RESOLUTION = "maps resized bilinearly to every image's original size; masks as they are"


def evaluate(
    detector: "Detector",
    *,
    data: StrPath | None = None,
    category: str | None = None,
    maps: StrPath | None = None,
    mask_threshold: int | None = None,
    streaming: bool = False,
    scores: bool = False,
    out: StrPath | None = None,
) -> dict[str, Any]:
    """Score the test split of a data set with a detector; most arguments are those of :func:`vitlite.evaluate`.

    Args:
        maps: folder for the anomaly maps at original size, in the layout that ``vitlite eval-maps`` reads.
        out: the folder that the results will be written to: a warning says if it holds those of other data.
    Returns:
        dict: the contents of results.json (docs/result-files.md).
    Raises:
        UserError: as there, for a mask of another size than its image, for scores that are not finite, and if ``maps``
            holds maps of other images.
    """
    dataset = open_test_data(detector, data, category, mask_threshold)
    if out is not None:
        warn_of_replacing(out, dataset.root)
    if maps is not None:
        earlier_maps(maps, dataset.test)  # refuses those that are not ours before the work begins
    # The maps of a category are gone before those of the next are made.
    strange = detector.strange()
    categories = {
        name: evaluate_category(detector, dataset, name, maps=maps, streaming=streaming, scores=scores, strange=strange)
        for name in dataset.categories
    }
    strange.say()
    return collect(categories, about(detector, dataset) | {"streaming": streaming})


def evaluate_category(
    detector: "Detector",
    dataset: Dataset,
    name: str,
    *,
    maps: StrPath | None = None,
    streaming: bool = False,
    scores: bool = False,
    strange: Strange | None = None,
) -> Values:
    """Score, measure and, into the folder ``maps``, write one category; returns its entry in results.json.

    ``strange`` as for ``score_files`` of a detector.
    """
    from vitlite.engine.detector import EveryScore

    scorer = EveryScore(detector) if scores else detector
    scored = score_category(
        scorer, dataset, name, full_maps=maps is not None, streaming=streaming, maps=maps, strange=strange
    )
    result = summarize_category(scored)
    if isinstance(scorer, EveryScore):
        result["scores"] = scorer.entries([sample.label for sample in scored.samples])
    if maps is not None and not streaming:  # after what may refuse: a failed evaluation leaves earlier maps alone
        save_maps(maps, samples_of(dataset, name), scored.samples, scored.maps)
    return result


def evaluate_folder(
    maps: StrPath,
    data: StrPath,
    category: str | None = None,
    *,
    mask_threshold: int | None = None,
    streaming: bool = False,
    out: StrPath | None = None,
) -> dict[str, Any]:
    """Score the maps of a folder against a data set with masks; the score of an image is the maximum of its map.

    Args:
        maps: folder that holds ``<category>/test/<defect>/<stem>.tiff``, .tif or .npy for every test image.
        data, category, mask_threshold, streaming, out: as for ``evaluate``; default: all categories.
    Returns:
        dict: the contents of results.json (docs/result-files.md), without a calibrated threshold and verdicts.
    Raises:
        UserError: names the missing, extra, misnamed, ambiguous, unreadable, wrong-sized and not finite maps, the
            first few and how many; or the category without both good and defective images, without masks, or with
            masks whose values fit no rule.
    """
    category = category or "all"
    dataset = with_mask_rules(open_dataset(Path(data), category, need_train=False, need_test=True), mask_threshold)
    problems, categories = Problems(), {}
    if out is not None:
        warn_of_replacing(out, dataset.root)
    found = find_maps(maps, dataset, problems, whole=category == "all" and dataset.nested)
    for name in dataset.categories:
        if all(sample.mask is None for sample in dataset.test if sample.category == name):
            raise UserError(f"{shown(data)}: category {name!r} has no masks, which maps are compared with")
        scored = read_category(found, dataset, name, problems, streaming=streaming)
        if problems:
            continue  # reads the other categories as well, so that everything wrong is said at once
        categories[name] = summarize_category(scored)
        if categories[name]["pixel_auroc"] is None:
            raise UserError(f"{shown(data)}: no mask of category {name!r} has a defective pixel")
    if problems:
        raise UserError(f"{shown(maps)}: {problems.line()}; expected one map per test image, {LAYOUT}")
    return collect(
        categories,
        {
            "maps": str(maps),
            "data": str(dataset.root),
            "split": "test",
            "resolution": "maps and masks at every image's original size, as they are",
            "mask_rule": mask_rule(dataset),
            "streaming": streaming,
            "image_score": "maximum of the map",
            "versions": versions(),
        },
    )


def open_test_data(
    detector: "Detector", data: StrPath | None = None, category: str | None = None, mask_threshold: int | None = None
) -> Dataset:
    """The data set whose test split is scored; by default what the run was trained on, with its categories."""
    settings = detector.settings
    root = Path(data) if data else data_folder(settings, detector.run)
    if category is None and (data is None or all((root / name).is_dir() for name in settings.category.split(","))):
        category = settings.category
    dataset = open_dataset(root, category, need_train=False, need_test=True)
    strange = [name for name in dataset.categories if name not in settings.category.split(",")]
    if strange:
        log.warning("%s: never trained on; this run was trained on %s", few(strange), shown(settings.category))
    warn_of_copies(detector, dataset)
    return with_mask_rules(dataset, mask_threshold, max_pixels=detector.reading.max_pixels)


def about(detector: "Detector", dataset: Dataset) -> dict[str, Any]:
    """How the results of a detector were made."""
    import torch

    settings = detector.settings
    return {
        "method": settings.method,
        "preset": settings.preset,
        "data": str(dataset.root),
        "split": "test",
        "trained_on": settings.category,
        "resolution": RESOLUTION,
        "mask_rule": mask_rule(dataset),
        "image_score": detector.method.image_score,
        "min_area": limits_of(detector.calibration).min_area if detector.calibration else None,
        "seed": settings.seed,
        "device": str(detector.device),
        "threads": torch.get_num_threads(),
        "precision": detector.precision,  # of scoring, whatever the training's
        "training_precision": settings.config.precision,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "backbone": detector.method.backbone_name,
        "versions": versions(torch=torch.__version__),
    }


def mask_rule(dataset: Dataset) -> str | None:
    """When a pixel of a mask is defective, in words; the rule of each category if they differ."""
    rules = {name: str(rule) for name, rule in dataset.mask_rules.items()}
    if len(set(rules.values())) < 2:
        return next(iter(rules.values()), None)
    return "; ".join(f"{shown(name)} {rule}" for name, rule in rules.items())


def versions(**others: str) -> dict[str, str]:
    """The versions that numbers depend on."""
    return {"vitlite": vitlite.__version__, **others, "numpy": np.__version__, "python": platform.python_version()}


def samples_of(dataset: Dataset, name: str) -> list[Sample]:
    """The test images of a category. ``UserError`` if good or defective ones are missing."""
    samples = [s for s in dataset.test if s.category == name]
    if len({s.label for s in samples}) < 2:
        kinds = few(list(dict.fromkeys(sample.defect for sample in samples)), 6)
        missing = "good" if samples[0].label else "defective"
        raise UserError(f"{shown(name)}: no {missing} test images beside {kinds}; ranking metrics need both kinds")
    return samples


def score_category(
    detector: Predictor,
    dataset: Dataset,
    name: str,
    *,
    full_maps: bool = False,
    streaming: bool = False,
    maps: StrPath | None = None,
    strange: Strange | None = None,
) -> Scored:
    """Scores, maps and masks of a category's test images; files that cannot be read are named, and in ``unread``.

    ``full_maps``: every map gets its image's original size, also if no mask is compared with it. ``streaming``: maps
    are counted, written into the folder ``maps``, if any, in place of earlier ones, and not kept. ``strange`` as for
    ``score_files``. ``UserError``: good or defective images are missing, a mask has another size than its image, or
    scores are not finite.
    """
    samples = samples_of(dataset, name)
    limits = limits_in(detector.calibration, name)
    scored = Scored(name, dataset, limits)
    if streaming:
        scored.stream(samples)
        if maps is not None:
            remove_maps(maps, samples)
    has_masks = any(s.mask is not None for s in samples)
    with Progress(f"scoring {name}", len(samples)) as progress:
        for found in detector.score_files([s.path for s in samples], keep_original=False, strange=strange):
            if isinstance(found, Unread):
                scored.unread.append(found)
                continue
            loaded, pixels, score = found
            mask = mask_of(samples[loaded.index], loaded, detector.reading.max_pixels)
            if isinstance(mask, Unread):
                scored.unread.append(mask)
                mask = None
            if mask is not None and loaded.inside is not None:
                mask = mask & loaded.inside
            needed = full_maps or (has_masks and mask is not None)
            # The smaller of the two is kept: small images may have maps that are larger as the network gives them.
            full = needed or loaded.box is not None or loaded.height * loaded.width <= pixels.size
            values = loaded.full(pixels) if full else pixels
            if not (np.isfinite(score) and np.isfinite(pixels).all()):
                raise UserError(f"{loaded.path}: its score or map is not finite; train again with a smaller `lr`")
            size = loaded.height, loaded.width
            too_small = limits is not None and all_small(values, *size, limits, loaded.inside)
            scored.add(samples[loaded.index], score, values, mask, pixels, too_small=too_small)
            if streaming and maps is not None:
                save_map(maps, samples[loaded.index], values)
            progress.step()
    LeftOut(log.warning, "skipped").all((file.path, file.reason) for file in scored.unread)
    return scored


def limits_in(calibration: dict[str, Any] | None, name: str) -> Limits | None:
    """A category's own limits, or the whole run's if it has none; None without a calibration."""
    if not calibration:
        return None
    return limits_of(calibration, name if name in calibration.get("categories", {}) else None)


def mask_of(sample: Sample, loaded: Loaded, max_pixels: int) -> np.ndarray | Unread | None:
    """The 0/1 mask of a test image; zeros for a good one, None or ``Unread`` if a defective one has no usable mask."""
    if not sample.label:
        return blank(loaded.height, loaded.width)
    if sample.mask is None:
        return None
    try:
        mask = read_mask(sample.mask, max_pixels=max_pixels)
    except ImageError as error:
        return Unread(loaded.index, Path(sample.mask), str(error))
    if mask.shape != (loaded.height, loaded.width):
        raise UserError(
            f"{sample.mask}: the mask is {mask.shape[1]}x{mask.shape[0]}, "
            f"its image {loaded.width}x{loaded.height}; save the mask at the image's size"
        )
    return mask


def read_category(
    found: dict[Sample, Path], dataset: Dataset, name: str, problems: Problems, *, streaming: bool = False
) -> Scored:
    """Maps on disk and masks of a category's test images; adds unusable maps to ``problems``."""
    pairs = [(sample, found[sample]) for sample in samples_of(dataset, name) if sample in found]
    scored = Scored(name, dataset)
    if streaming:
        scored.stream(sample for sample, _ in pairs)
    for (sample, _), loaded in zip(pairs, each(read_pair, pairs)):
        if isinstance(loaded, MapError):
            problems.add(loaded.kind, str(loaded))
        else:
            values, mask = loaded
            scored.add(sample, float(values.max()), values, mask)
    return scored


def read_pair(pair: tuple[Sample, Path]) -> tuple[np.ndarray, np.ndarray] | MapError:
    """(map, mask) of a sample and its map file, or a MapError that says what is wrong with the map."""
    sample, path = pair
    mask = truth(sample)
    name = f"{sample.category}/test/{sample.defect}/{path.name}"
    try:
        values = read_map(path)
        if values.shape != mask.shape:
            sizes = " but its image ".join(f"{h} x {w}" for h, w in (values.shape, mask.shape))
            raise MapError(path, "wrong-sized", f"is {sizes}")
    except MapError as error:
        return MapError(name, error.kind, error.reason)
    return values, mask
