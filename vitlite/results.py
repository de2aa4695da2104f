"""What scored test images come to, whoever made the maps: metrics and verdicts, as files and as a table."""

import contextlib
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitlite.data import Dataset, Sample
from vitlite.data.index import grouped
from vitlite.errors import UserError
from vitlite.files import DAMAGED, StrPath, csv_line, json_text, make_folder, shown, write_together
from vitlite.images.loading import Unread
from vitlite.limits import Limits
from vitlite.metrics import StreamingEvaluator, auroc, average_precision, evaluate_maps, f1_max
from vitlite.metrics.streaming import update_all
from vitlite.score_table import aligned

log = logging.getLogger(__name__)

SCHEMA = 2  # of results.json; version 0.1.0 wrote it without a number
KEYS = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro_30", "aupro_05")
THRESHOLDS = ("image_f1_threshold", "pixel_f1_threshold")  # what reaches the two best F1 of a category
PIXEL_KEYS = (*KEYS[3:], THRESHOLDS[1])
ERROR_BOUND = "error_bound"  # what the pixel metrics differ at most from the exact ones; 0 if these are exact
PEAK = "peak_on_mask"  # the share of defective images whose map is highest on the mask
SHOWN = (*KEYS, PEAK)  # metrics of the table
HEADS = dict(zip(SHOWN, ("image AUROC", "image AP", "image best F1", "pixel AUROC", "pixel AP", "pixel best F1")))
HEADS |= {"aupro_30": "AUPRO@0.3", "aupro_05": "AUPRO@0.05", PEAK: "peak on mask"}
KIND_CELLS = 1 << 17  # of a StreamingEvaluator of one kind of defect: there may be many
COUNTS = ("tp", "fp", "tn", "fn")  # images at the calibrated threshold
# For data sets with Dataset.kinds_of_mean: the mean of the image AUROCs over the good images and one of these kinds.
MEAN_OF_KINDS = "image_auroc_mean_of_kinds"
RESULTS_FILE, TABLE_FILE, SCORES_FILE = "results.json", "results.csv", "scores.csv"
SCORE_COLUMNS = ("file", "category", "kind", "label", "score", "verdict")
TABLE_COLUMNS = ("category", "defect", "images", *SHOWN, *THRESHOLDS, "threshold", *COUNTS)

Values = dict[str, Any]  # metrics, and what else belongs to a category or a kind of defect


@dataclass
class Scored:
    """The test images of one category that could be read, in order: image scores, maps and masks.

    A map has the original size of its image if a metric or a file needs it. Otherwise it has the size that the network
    gave it, if that is smaller: maps of large photographs without masks would fill the memory for nothing. If the maps
    are streamed, none is kept.
    """

    name: str
    dataset: Dataset
    limits: Limits | None = None  # what an image is judged by; None: not calibrated
    samples: list[Sample] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    too_small: list[bool] = field(default_factory=list)  # all regions: the image is good whatever its score
    maps: list[np.ndarray] = field(default_factory=list)  # (H, W) float32, or (S, S) as the network gave it
    # (H, W) uint8 of 0 and 1 at original size, None for a defective image without a usable mask
    masks: list[np.ndarray | None] = field(default_factory=list)
    marks: list[bool | None] = field(default_factory=list)  # whether the mask marks anything, None without a mask
    # of a defective image whose mask marks something: 1.0 if its map is highest on the mask, 0.0 if not, or between
    peaks: list[float | None] = field(default_factory=list)
    streams: dict[str | None, StreamingEvaluator] | None = None  # by kind of defect, None for all; None: maps are kept
    unread: list[Unread] = field(default_factory=list)  # every image or mask that could not be read

    def stream(self, samples: Iterable[Sample]) -> None:
        """Count the maps of these test images, all and by kind of defect, and keep none of them."""
        kinds = dict.fromkeys(sample.defect for sample in samples if sample.mask is not None)
        self.streams = {kind: StreamingEvaluator(cells=KIND_CELLS) for kind in kinds}
        if kinds:
            self.streams[None] = StreamingEvaluator()

    def add(
        self,
        sample: Sample,
        score: float,
        values: np.ndarray,
        mask: np.ndarray | None,
        small: np.ndarray | None = None,
        *,
        too_small: bool = False,
    ) -> None:
        """One more image; ``small`` is its map as the network gave it, if ``values`` were resized."""
        self.samples.append(sample)
        self.scores.append(score)
        self.too_small.append(too_small)
        self.marks.append(None if mask is None else bool(mask.any()))
        its_mask = mask if self.marks[-1] and sample.label else None
        self.peaks.append(None if its_mask is None else peak_on_mask(values if small is None else small, its_mask))
        if self.streams is None:
            self.maps.append(values)
            self.masks.append(mask)
        elif mask is not None:
            its = [one for kind, one in self.streams.items() if not sample.label or kind in (None, sample.defect)]
            if its:  # without any mask, maps have not the images' sizes
                update_all(its, mask, values, image_label=sample.label, image_score=score)

    def pixel_metrics(self, known: Sequence[int], kind: str | None) -> Values:
        """The metrics of maps and masks, which all of ``known`` have: the good images, and one kind or all of them."""
        if self.streams is not None:
            return self.streams[kind].result()
        labels, scores = np.array([self.samples[i].label for i in known]), np.array([self.scores[i] for i in known])
        masks = [mask for i in known if (mask := self.masks[i]) is not None]
        return evaluate_maps(masks, [self.maps[i] for i in known], image_labels=labels, image_scores=scores)


def summarize_category(scored: Scored) -> Values:
    """A category's entry in results.json: metrics overall and per kind of defect, counts, every image's verdict."""
    labels = [s.label for s in scored.samples]
    verdicts, counts = judged(scored, labels)
    result = measure(scored, range(len(labels)))
    result["good"] = labels.count(0)
    result["defective"] = labels.count(1)
    result["skipped"] = [str(file.path) for file in scored.unread]
    rule = scored.dataset.mask_rules.get(scored.name)
    result["mask_rule"] = None if rule is None else str(rule)
    result["without_mask"] = scored.marks.count(None)
    result["empty_masks"] = sum(mark is False for sample, mark in zip(scored.samples, scored.marks) if sample.label)
    result |= counts
    result["defects"] = {}
    for kind in sorted({s.defect for s in scored.samples if s.label}):
        chosen = [i for i, s in enumerate(scored.samples) if not s.label or s.defect == kind]
        result["defects"][kind] = {
            **measure(scored, chosen, kind),
            "images": sum(labels[i] for i in chosen),
            **found_of(verdicts[i] for i in chosen if labels[i]),
        }
    if scored.dataset.kinds_of_mean and set(result["defects"]) == set(scored.dataset.kinds_of_mean):
        result[MEAN_OF_KINDS] = float(np.mean([own["image_auroc"] for own in result["defects"].values()]))
    result["images"] = [
        {
            "file": shown(sample.path.relative_to(scored.dataset.root)),
            "kind": sample.defect,
            "label": sample.label,
            "score": score,
            "verdict": verdict,
        }
        for sample, score, verdict in zip(scored.samples, scored.scores, verdicts)
    ]
    return result


def measure(scored: Scored, chosen: Sequence[int], kind: str | None = None) -> Values:
    """The eight metrics over the chosen images, the thresholds of the best F1, and how far the metrics may be wrong.

    The chosen images are the good ones and those of one kind of defect, or all. Pixel metrics are over the images that
    have masks; they are None if no mask has a defective pixel.
    """
    own = np.array([scored.samples[i].label for i in chosen])
    values = np.array([scored.scores[i] for i in chosen])
    if own.all() or not own.any():
        raise UserError("after skipping unreadable files there are no longer both good and defective test images")
    result = dict.fromkeys((*KEYS, *THRESHOLDS, ERROR_BOUND))
    result["image_auroc"], result["image_ap"] = auroc(own, values), average_precision(own, values)
    result["image_f1_max"], result["image_f1_threshold"] = f1_max(own, values)
    known = [i for i in chosen if scored.marks[i] is not None]
    if any(scored.marks[i] for i in known):
        pixel = scored.pixel_metrics(known, kind)
        result |= {key: pixel[key] for key in PIXEL_KEYS} | {ERROR_BOUND: pixel.get(ERROR_BOUND, 0.0)}
    peaks = [peak for i in chosen if (peak := scored.peaks[i]) is not None]
    result[PEAK] = np.mean(peaks) if peaks else None
    return {key: None if value is None else float(value) for key, value in result.items()}


def peak_on_mask(values: np.ndarray, mask: np.ndarray) -> float:
    """1.0 if the highest value of a map lies on the mask, 0.0 if not; of several highest values, the share that does.

    A map (h, w) of another size than the mask (H, W) of 0 and 1 lies over it. A value is on the mask if any pixel of
    the mask below it is set: a defect that is thinner than a pixel of the map can be hit.
    """
    for axis, (count, length) in enumerate(zip(values.shape, mask.shape)):
        mask = np.maximum.reduceat(mask, np.arange(count) * length // count, axis=axis)
    return float(np.mean(mask[values == values.max()]))


def judged(scored: Scored, labels: Sequence[int]) -> tuple[list[str | None], Values]:
    """The verdict on every image, and ``threshold``, ``tp``, ``fp``, ``tn``, ``fn``; all None without a threshold."""
    if scored.limits is None:
        return [None] * len(labels), {"threshold": None, **dict.fromkeys(COUNTS)}
    threshold = scored.limits.image
    above = (np.asarray(scored.scores, dtype=np.float64) > threshold) & ~np.asarray(scored.too_small, dtype=bool)
    bad = np.asarray(labels) == 1
    counts = (above & bad, above & ~bad, ~above & ~bad, ~above & bad)
    found = {"threshold": threshold, **{key: int(which.sum()) for key, which in zip(COUNTS, counts)}}
    return ["defect" if defect else "good" for defect in above], found


def found_of(verdicts: Iterable[str | None]) -> Values:
    """``tp`` and ``fn`` among the verdicts on defective images; None without a threshold."""
    counts = Counter(verdicts)
    return dict.fromkeys(("tp", "fn")) if None in counts else {"tp": counts["defect"], "fn": counts["good"]}


def collect(categories: dict[str, Values], about: dict[str, Any]) -> dict[str, Any]:
    """The contents of results.json: the categories, the mean of their metrics, and how they were measured."""
    return {"schema": SCHEMA, "about": about, "mean": mean_of(categories.values()), "categories": categories}


def mean_of(categories: Iterable[Values]) -> dict[str, float | None]:
    """The unweighted mean over categories of every metric; None if no category has it.

    The mean of kinds is among them if every category has one.
    """
    categories, means = list(categories), {}
    for key in SHOWN:
        values = [found[key] for found in categories if found.get(key) is not None]
        means[key] = float(np.mean(values)) if values else None
    of_kinds = [found[MEAN_OF_KINDS] for found in categories if MEAN_OF_KINDS in found]
    if of_kinds and len(of_kinds) == len(categories):
        means[MEAN_OF_KINDS] = float(np.mean(of_kinds))
    return means


def write(folder: StrPath, results: dict[str, Any]) -> list[Path]:
    """Write results.json, results.csv and scores.csv into a folder; returns their paths.

    Raises ``UserError`` if the folder cannot be made or written; all three files are as they were then.
    """
    folder = make_folder(Path(folder))
    paths = [folder / name for name in (RESULTS_FILE, TABLE_FILE, SCORES_FILE)]
    rows = itertools.chain([TABLE_COLUMNS], map(_cells, _rows(results)))
    scores = itertools.chain([SCORE_COLUMNS], _scores(results))
    texts = (json_text(results), "".join(map(csv_line, rows)), "".join(map(csv_line, scores)))
    write_together(dict(zip(paths, texts)))
    return paths


def read(folder: StrPath) -> dict[str, Any]:
    """The results.json of a folder. ``UserError`` names a file that is damaged or that a newer version wrote."""
    path = Path(folder) / RESULTS_FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if results.get("schema", 1) > SCHEMA:
            raise UserError(f"{path}: written by a newer vitlite (schema {results['schema']}); upgrade to read it")
        return {**results, "categories": dict(results["categories"])}
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it, and evaluate again") from error


def warn_of_replacing(folder: StrPath, data: StrPath) -> None:
    """Warn if a folder holds results on other data than ``data``; a damaged results.json is no loss."""
    path = Path(folder) / RESULTS_FILE
    with contextlib.suppress(UserError):
        about = read(folder).get("about")
        before = about.get("data") if isinstance(about, dict) else None
        if isinstance(before, str) and os.path.realpath(before) != os.path.realpath(data):
            log.warning(
                "%s: the results on %s are replaced; to keep them, stop here and choose another folder (out)",
                shown(path),
                shown(before),
            )


def table(results: dict[str, Any]) -> str:
    """What the calibrated thresholds make of the images, then the metrics, then notes.

    The metrics are aligned: a line per category, its kinds of defects below it, the mean last.
    """
    lines = [("", "images", *(HEADS[key] for key in SHOWN))]
    for category, kind, images, values in _rows(results):
        if category is None and len(results["categories"]) == 1:
            continue
        name = "mean" if category is None else shown(category) if kind is None else f"  {shown(kind)}"
        cells = (values.get(key) for key in SHOWN)
        lines.append((name, str(images), *("-" if value is None else f"{value:.4f}" for value in cells)))
    return "\n".join([*mistakes(results["categories"]), *aligned(lines), *_notes(results)])


def mistakes(categories: dict[str, Values]) -> list[str]:
    """False alarms and misses at the calibrated thresholds, in lines: of all, and of each category if there are more.

    None without a calibration.
    """
    if any(found["threshold"] is None for found in categories.values()):
        return []
    if len(categories) == 1:
        return [f"at the calibrated threshold: {_mistakes(list(categories.values()))}"]
    lines = [f"at the calibrated thresholds: {_mistakes(list(categories.values()))}"]
    return lines + [f"  {shown(name)}: {_mistakes([found])}" for name, found in categories.items()]


def _mistakes(found: Sequence[Values]) -> str:
    tp, fp, tn, fn = (sum(own[key] for own in found) for key in COUNTS)
    line = f"{fp} of {fp + tn} good images called defective, {fn} of {tp + fn} defective images missed"
    kinds = found[0]["defects"] if len(found) == 1 else {}
    missed = [f"{shown(kind)} {own['fn']} of {own['images']}" for kind, own in kinds.items() if own["fn"]]
    if len(kinds) > 1 and missed:
        line += f" ({', '.join(missed)})"
    return line


def _rows(results: dict[str, Any]) -> Iterator[tuple[str | None, str | None, int, Values]]:
    """(category, kind of defect, images, values): kind None is all of a category, and category None is the mean."""
    total = 0
    for name, found in results["categories"].items():
        images = found["good"] + found["defective"]
        yield name, None, images, found
        for kind, values in found["defects"].items():
            yield name, kind, values["images"], values
        total += images
    yield None, None, total, results["mean"]


def _cells(row: tuple[str | None, str | None, int, Values]) -> list[object]:
    category, kind, images, values = row
    names = ("mean" if category is None else shown(category), "all" if kind is None else shown(kind))
    return [*names, images, *(values.get(column) for column in TABLE_COLUMNS[3:])]


def _scores(results: dict[str, Any]) -> Iterator[list[object]]:
    for name, found in results["categories"].items():
        for image in found["images"]:
            yield [image["file"], shown(name), shown(image["kind"]), image["label"], image["score"], image["verdict"]]


def _notes(results: dict[str, Any]) -> list[str]:
    """What a category has besides the metrics: masks, and MVTec LOCO's own image AUROC."""
    categories = results["categories"]
    notes = _about_masks(categories)
    bounds = [found[ERROR_BOUND] for found in categories.values() if found.get(ERROR_BOUND) is not None]
    if bounds and results["about"].get("streaming"):
        notes.append("streaming: pixel metrics are exact" + f" to within {max(bounds):.1e}" * (max(bounds) > 0))
    every = [*categories.items(), *([("mean", results["mean"])] if len(categories) > 1 else [])]
    own = [f"{shown(name)} {values[MEAN_OF_KINDS]:.4f}" for name, values in every if MEAN_OF_KINDS in values]
    if own:
        notes.append(f"image AUROC as LOCO has it, the mean of its two kinds: {', '.join(own)}")
    return notes


def _about_masks(categories: dict[str, Values]) -> list[str]:
    """The rule of the masks, with the categories that have it if it is not everyone's, and how many are missing."""
    ruled = {name: found["mask_rule"] for name, found in categories.items() if found.get("mask_rule") is not None}
    names, lines = grouped((rule, shown(name)) for name, rule in ruled.items()), []
    if names:
        parts = [rule if len(own) == len(categories) else f"{rule} ({', '.join(own)})" for rule, own in names.items()]
        lines.append(f"masks: {'; '.join(parts)}")
    defective, missing, empty = (
        sum(found.get(key, 0) for found in categories.values()) for key in ("defective", "without_mask", "empty_masks")
    )
    if missing:
        so = "so there are no pixel metrics" if missing == defective else "pixel metrics leave them out"
        lines.append(f"{missing} of {defective} defective images have no mask that can be read; {so}")
    if empty:
        lines.append(f"{empty} of {defective} defective images have a mask that marks nothing")
    return lines
