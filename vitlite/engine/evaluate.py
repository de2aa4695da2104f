"""Scoring a trained detector on labelled test images, at their original resolution."""

import logging
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vitlite
from vitlite.data import ImageError, open_dataset, read_mask
from vitlite.data.map_files import LAYOUT, Problems, find_maps, truth
from vitlite.engine.progress import Progress
from vitlite.engine.results import KEYS, earlier_maps, save_maps
from vitlite.engine.settings import data_folder
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.loading import Unread
from vitlite.images.maps import MapError, read_map
from vitlite.images.resize import map_at
from vitlite.metrics import auroc, average_precision, evaluate_maps, f1_max

log = logging.getLogger(__name__)

# For data sets with Dataset.kinds_of_mean: the mean of the image AUROCs over the good images and one of these kinds.
MEAN_OF_KINDS = "image_auroc_mean_of_kinds"


@dataclass
class Scored:
    """The test images of one category that could be read, in order: image scores, maps and masks.

    A map is at original size where a metric or a file needs it, and else as the network gave it where that is smaller:
    large photographs without masks would otherwise fill the memory with maps of which nothing is measured.
    """

    name: str
    samples: list  # vitlite.data.Sample
    scores: list  # float
    maps: list  # (H, W) float32, or (S, S) as the network gave it
    masks: list  # (H, W) uint8 at original size of 0 and 1, None where a defective image has no usable mask
    unread: list  # vitlite.images.loading.Unread of every image or mask that could not be read
    kinds_of_mean: tuple[str, ...] = ()  # as in Dataset


def evaluate(detector, *, data=None, category=None, maps=None):
    """Score the test split of ``data`` (default: the data of training); returns the contents of results.json.

    ``maps`` is a folder for the anomaly maps at original size, in the layout that ``vitlite eval-maps`` reads.
    """
    dataset = open_test_data(detector, data, category)
    if maps is not None:
        earlier_maps(maps, dataset.test)  # refuses those that are not ours before the work begins
    # The maps of a category are gone before those of the next are made.
    categories = {name: evaluate_category(detector, dataset, name, maps=maps) for name in dataset.categories}
    return {
        "mean": mean_of(categories.values()) | mean_of_kinds(categories.values()),
        "categories": categories,
        "about": about(detector, dataset),
    }


def evaluate_category(detector, dataset, name, *, maps=None):
    """Score, measure and (``maps``) write one category; its entry in results.json."""
    scored = score_category(detector, dataset, name, full_maps=maps is not None)
    result = summarize_category(scored)
    if maps is not None:  # after what may refuse: a failed evaluation leaves earlier maps alone
        save_maps(scored, maps, [s for s in dataset.test if s.category == name])
    return result


def open_test_data(detector, data=None, category=None):
    """The data set whose test split is scored; by default what the run was trained on, with its categories."""
    settings = detector.settings
    root = Path(data) if data else data_folder(settings, detector.run)
    if category is None and (data is None or all((root / name).is_dir() for name in settings.category.split(","))):
        category = settings.category
    return open_dataset(root, category, need_train=False, need_test=True)


def about(detector, dataset):
    """What every result says of itself."""
    settings = detector.settings
    import torch

    return {
        "method": settings.method,
        "preset": settings.preset,
        "data": str(dataset.root),
        "split": "test",
        "trained_on": settings.category,
        "resolution": "maps resized bilinearly to every image's original size; masks as they are",
        "mask_rule": dataset.mask_rule,
        "image_score": detector.method.image_score,
        "seed": settings.seed,
        "device": str(detector.device),
        "threads": torch.get_num_threads(),
        "precision": "float32",  # of scoring, whatever the training's
        "training_precision": settings.config.precision,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "backbone": detector.method.backbone_name,
        "versions": {
            "vitlite": vitlite.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def score_category(detector, dataset, name, *, full_maps=False):
    """Scores, maps and masks of a category's test images; what cannot be read is said and kept in ``unread``.

    ``full_maps`` has every map at original size, also those that no mask is compared with.
    """
    samples = [s for s in dataset.test if s.category == name]
    if len({s.label for s in samples}) < 2:
        missing = "good" if samples[0].label else "defective"
        raise UserError(f"{name}: no {missing} test images; ranking metrics need both kinds")
    scored = Scored(name, [], [], [], [], [], dataset.kinds_of_mean)
    has_masks = any(s.mask is not None for s in samples)
    with Progress(f"scoring {name}", len(samples)) as progress:
        paths = [s.path for s in samples]
        for found in detector.score_files(paths, keep_original=False):
            if isinstance(found, Unread):
                scored.unread.append(found)
                continue
            loaded, pixels, score = found
            sample = samples[loaded.index]
            scored.samples.append(sample)
            scored.scores.append(score)
            mask = mask_of(sample, loaded)
            if isinstance(mask, Unread):
                scored.unread.append(mask)
                mask = None
            needed = full_maps or (has_masks and mask is not None)
            # The smaller of the two is kept: tiny pictures may have maps that are larger as the network gives them.
            full = needed or loaded.height * loaded.width <= pixels.size
            scored.maps.append(map_at(pixels, loaded.height, loaded.width) if full else pixels)
            scored.masks.append(mask)
            progress.step()
    for file in scored.unread:
        log.warning("skipped %s", file.reason)
    if not np.isfinite(scored.scores).all():
        raise UserError(f"{detector.run}: gives scores that are not finite; train it again with a smaller --set lr")
    return scored


def summarize_category(scored):
    """All metrics of one category, overall and per kind of defect."""
    rows = list(zip(scored.samples, scored.scores))
    labels = [s.label for s in scored.samples]
    result = measure(rows, scored.maps, scored.masks, range(len(rows)))
    result["good"] = labels.count(0)
    result["defective"] = labels.count(1)
    result["skipped"] = [str(file.path) for file in scored.unread]
    result["without_mask"] = sum(m is None for m in scored.masks)
    result["defects"] = {}
    for kind in sorted({s.defect for s in scored.samples if s.label}):
        chosen = [i for i, s in enumerate(scored.samples) if not s.label or s.defect == kind]
        result["defects"][kind] = measure(rows, scored.maps, scored.masks, chosen)
        result["defects"][kind]["images"] = sum(labels[i] for i in chosen)
    if scored.kinds_of_mean and set(result["defects"]) == set(scored.kinds_of_mean):
        result[MEAN_OF_KINDS] = float(np.mean([own["image_auroc"] for own in result["defects"].values()]))
    return result


def mask_of(sample, loaded):
    """The 0/1 mask of a test image; zeros for a good one, None or ``Unread`` if a defective one has no usable mask."""
    if not sample.label:
        return blank(loaded.height, loaded.width)
    if sample.mask is None:
        return None
    try:
        mask = read_mask(sample.mask)
    except ImageError as error:
        return Unread(loaded.index, Path(sample.mask), str(error))
    if mask.shape != (loaded.height, loaded.width):
        raise UserError(
            f"{sample.mask}: the mask is {mask.shape[1]}x{mask.shape[0]}, "
            f"its image {loaded.width}x{loaded.height}; save the mask at the image's size"
        )
    return mask


def blank(height, width):
    """The mask of a good picture, read-only: one zero that stands at every place, so that it takes no memory."""
    return np.broadcast_to(np.uint8(0), (height, width))


def measure(rows, maps, masks, chosen):
    """The eight metrics over the chosen images; pixel metrics over those that have masks, None where none can be."""
    labels = np.array([rows[i][0].label for i in chosen])
    scores = np.array([rows[i][1] for i in chosen])
    if len(set(labels.tolist())) < 2:
        raise UserError("after skipping unreadable files there are no longer both good and defective test images")
    result = {
        "image_auroc": auroc(labels, scores),
        "image_ap": average_precision(labels, scores),
        "image_f1_max": f1_max(labels, scores)[0],
        **dict.fromkeys(KEYS[3:]),
    }
    known = [i for i in chosen if masks[i] is not None]
    if any(masks[i].any() for i in known):
        pixel = evaluate_maps(
            [masks[i] for i in known],
            [maps[i] for i in known],
            image_labels=np.array([rows[i][0].label for i in known]),
            image_scores=np.array([rows[i][1] for i in known]),
        )
        result.update({key: float(pixel[key]) for key in KEYS[3:]})
    return {key: None if value is None else float(value) for key, value in result.items()}


def mean_of(results):
    """The unweighted mean over categories of every metric; None where no category has it."""
    results = list(results)
    means = {}
    for key in KEYS:
        values = [r[key] for r in results if r[key] is not None]
        means[key] = float(np.mean(values)) if values else None
    return means


def mean_of_kinds(results):
    """The mean over categories of LOCO's own image AUROC, as a dict; empty unless all categories are LOCO's."""
    values = [r.get(MEAN_OF_KINDS) for r in results]
    return {} if None in values else {MEAN_OF_KINDS: float(np.mean(values))}


def results_csv(results):
    """results.csv: one row per category and defect kind, then the mean."""
    lines = [",".join(("category", "defect", "images", *KEYS))]

    def row(category, defect, images, values):
        cells = ("" if values[k] is None else f"{values[k]:.6f}" for k in KEYS)
        lines.append(",".join((quote(shown(category)), quote(shown(defect)), str(images), *cells)))

    for name, result in results["categories"].items():
        row(name, "all", result["good"] + result["defective"], result)
        for kind, values in result["defects"].items():
            row(name, kind, values["images"], values)
    total = sum(r["good"] + r["defective"] for r in results["categories"].values())
    row("mean", "all", total, results["mean"])
    return "\n".join(lines) + "\n"


def quote(text):
    """A CSV cell (RFC 4180)."""
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def _load(pair):
    """(mask, map) of one sample, or a MapError that says what is wrong with the map."""
    sample, path = pair
    mask = truth(sample)
    name = f"{sample.category}/test/{sample.defect}/{path.name}"
    try:
        values = read_map(path)
        if values.shape != mask.shape:
            sizes = " but its picture ".join(f"{h} x {w}" for h, w in (values.shape, mask.shape))
            raise MapError(path, "wrong-sized", f"is {sizes}")
    except MapError as error:
        return MapError(name, error.kind, error.reason)
    return mask, values


def evaluate_folder(maps, data, category=None, *, on_category=None) -> dict:
    """Score the maps of a folder against a data set with masks.

    Args:
        maps, data: folders; the layout of ``maps`` is at the top of this file.
        category: a name, several with commas between, or ``all`` (default).
        on_category: called with (name, results) as each category is done.
    Returns:
        dict: ``mean`` and ``categories`` of the metrics, with the numbers of images, the resolution and the mask rule.
    Raises:
        UserError: names the missing, extra, misnamed, ambiguous, unreadable, wrong-sized and not-a-number maps, the
            first few and how many, or the category that lacks a class. Then there is no result at all.
    """
    from vitlite.engine.results import collect
    from vitlite.metrics.exact import evaluate_maps
    from vitlite.metrics.jit import run_all, thread_count

    category = category or "all"
    dataset = open_dataset(data, category, need_train=False, need_test=True)
    problems, results = Problems(), {}
    found = find_maps(maps, dataset, problems, whole=category == "all" and dataset.nested)
    for name in dataset.categories:
        pairs = [(sample, path) for sample, path in found.items() if sample.category == name]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")  # a damaged file is reported once, by us
            loaded = run_all(_load, pairs, thread_count(1 << 30))
        for error in loaded:
            if isinstance(error, MapError):
                problems.add(error.kind, str(error))
        if problems:
            continue  # reads the other categories as well, so that everything wrong is said at once
        labels = np.array([sample.label for sample, _ in pairs])
        try:
            scores = evaluate_maps(*zip(*loaded), image_labels=labels)
        except ValueError as error:
            raise UserError(f"{shown(data)}: category {name!r} cannot be scored: {error}") from error
        results[name] = {"images": len(pairs), "defective": int(labels.sum()), **scores}
        if on_category:
            on_category(name, results[name])
    if problems:
        raise UserError(f"{shown(maps)}: {problems.line()}; expected one map per test picture, {LAYOUT}")
    return collect(results, resolution="original", mask_rule=dataset.mask_rule)
