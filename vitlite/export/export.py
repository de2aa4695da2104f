"""From a run directory to one file, written only if it scores real images as the run does."""

import copy
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, islice, zip_longest
from pathlib import Path

import numpy as np
import torch

from vitlite.data import DRAWN, Dataset, draw_defect, list_images, open_dataset
from vitlite.data.index import grouped
from vitlite.engine.detector import Detector
from vitlite.engine.features import to_images
from vitlite.engine.settings import SYNTHETIC, data_folder
from vitlite.engine.split import good_split
from vitlite.errors import UserError
from vitlite.export.exported import Contents
from vitlite.export.lowered import Lowering
from vitlite.export.metadata import describe, dumps
from vitlite.export.onnx_detector import OnnxDetector
from vitlite.export.openvino_detector import OpenVinoDetector, to_openvino, weights_file
from vitlite.export.program import read_pt2, require_packages, to_onnx, to_pt2, trace
from vitlite.files import StrPath, atomic, counted, new_file
from vitlite.images.loading import readable_batches
from vitlite.nn.memory import MemoryModule

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "openvino": ".xml"}  # by format
# By precision, relative: of a score to itself, of a map to its largest value.
TOLERANCES = {"float32": {"score": 1e-4, "map": 1e-4}, "int8": {"score": 1e-2, "map": 1e-1}}
MADE = TOLERANCES | {"int8": {"score": 1e-1, "map": 1e-1}}  # of images that no camera makes
OWN, MOST = 2, 4e-3  # so many times what rounding changes in the run itself is added to a limit, up to this in all
ROUNDED = 4  # ways in which the input is rounded to find that
CHECKED = 32  # images of the run's data, if there are as many
MARGIN = 0.5  # int8: the share of the limits that checked images keep to, as of a thousand others some are further off
SHARES = (1, 3 / 4, 1 / 2, 1 / 4, 0)  # of the parts of the blocks in int8, tried in turn: the steadiest ones
STEADIED, FITTED = 8, 24  # images that show which parts are steadiest, and to which the rounding is fitted
MOVED_BY = 64  # good images whose scores move the thresholds of another precision
TILES_CHECKED = 8  # of an image, about
Scored = tuple[np.ndarray, np.ndarray]  # maps (B, H, W) and scores (B,)
ScorePixels = Callable[[np.ndarray], Scored]
Inputs = Iterable[tuple[list[str], np.ndarray]]  # names and uint8 images (B, H, W, 3)
log = logging.getLogger(__name__)


def export(
    run: StrPath,
    kind: str = "onnx",
    out: StrPath | None = None,
    *,
    check: Sequence[StrPath] = (),
    precision: str = "float32",
) -> Path:
    """Write a run as one file, and return its path.

    Args:
        run: folder of the run.
        kind: ``"onnx"``, ``"pt2"`` or ``"openvino"``, which is two files, .xml and .bin.
        out: the file; default: model.KIND in the run, or model.xml, or model-int8.xml.
        check: images (files, folders, patterns) that the finished file scores first; default: 32 images of the run's
            data, of every kind. Images of one colour and of noise come besides. If the method has a memory, so does a
            copy of the run whose weights are all at the threshold.
        precision: ``"float32"``, or ``"int8"`` for the matrix products of the transformer and of the bank of ``sivt``,
            with ``kind="openvino"``. Then scores may differ by 1e-2 from the run's and maps by 1e-1, and on images that
            are checked by half of that: up to 32 held-out good ones, and drawn defects on them, come besides. If they
            differ by more, parts of the transformer stay in float32. The thresholds are moved by how much the scores
            of good images do: up to 64 of training, or those of ``check``.

    Raises:
        UserError: a score or map is not finite or differs too much from the run's own: by more than 1e-4 and twice what
            that changes if its input is rounded in another way, or by more than half the limits of int8; or a package,
            the images or the folder are missing. Then nothing is written.
    """
    for name, value, known in (("kind", kind, SUFFIXES), ("precision", precision, TOLERANCES)):
        if value not in known:
            raise UserError(f"`{name}={value}`: not one of {', '.join(known)}")
    lower = precision != "float32"
    if lower and kind != "openvino":
        raise UserError(f"`precision={precision}`: goes with `kind=openvino` alone")
    require_packages(kind)
    ending = SUFFIXES[kind]
    if out is not None:
        new_file(out, ending)
    detector = Detector(run, "cpu")
    if lower and precision not in detector.method.exports:
        name = detector.settings.method
        raise UserError(f"`precision={precision}`: {name} is exported in {' or '.join(detector.method.exports)}")
    path = new_file(out or Path(run) / f"model{f'-{precision}' if lower else ''}{ending}", ending)
    paths = list_images(check) if check else images_of_run(detector)
    if next(readable_batches(paths, detector.view, 1, detector.reading), None) is None:
        raise UserError(f"{counted(len(paths), 'image')} to compare on, none can be read; give others with `check`")
    made = made_images(detector.view.sides)
    allowed = TOLERANCES[precision]
    # Their scores may be nearly 0; what matters then is the distance from a threshold.
    scales = {"map": detector.calibration["pixel_threshold"], "score": detector.calibration["image_threshold"]}
    again = partial(rounded_otherwise, detector)
    edge = at_threshold(detector)
    if edge is not None:
        named = f"{path} with its memory at the threshold"
        compare(edge.score_pixels, converted(edge, kind, path)[1], [made], named, allowed, scales)
        del edge  # as large as the detector itself
    if lower:
        good, unseen = (paths, []) if check else (good_of_run(detector), held_out_of_run(detector))
        data, score_pixels, count, worst = closest(detector, path, good, lambda: with_drawn(detector, paths, unseen))
    else:
        data, score_pixels = converted(detector, kind, path)
        count, worst = compare(detector.score_pixels, score_pixels, images(detector, paths), path, allowed, None, again)
    compare(detector.score_pixels, score_pixels, [made], path, MADE[precision], scales, None if lower else again)
    for place, part in zip((weights_file(path), path)[-len(data) :], reversed(data)):  # the graph after its weights
        with atomic(place, "wb") as file:
            file.write(part)
    log.info(
        "checked on %s: scores differ by at most %.1e and maps by %.1e relative",
        counted(count, "tile" if detector.view.tile else "image"),
        worst["score"],
        worst["map"],
    )
    return path


def closest(
    detector: Detector, path: Path, good: Sequence[Path], checked: Callable[[], Inputs]
) -> tuple[Contents, ScorePixels, int, dict[str, float]]:
    """A run in int8, in as many parts as keep scores and maps well within the limits, and what scores with it.

    ``good`` images set the thresholds, and some of them the rounding; ``checked`` gives those whose scores and maps
    decide. And what ``compare`` found. ``UserError`` if no choice of parts does.
    """
    allowed = {what: limit * MARGIN for what, limit in TOLERANCES["int8"].items()}
    lowering = Lowering(detector, path, (seen for _, seen in images(detector, good[:: -(-len(good) // FITTED)])))
    order, total = list(lowering.parts), len(lowering.parts)
    counts = list(dict.fromkeys(round(share * total) for share in SHARES if lowering.bank or share))
    for turn, count in enumerate(counts):
        if turn == 1:
            order = lowering.steadiest(np.concatenate([seen for _, seen in islice(checked(), 3)])[:STEADIED])
        exported = OpenVinoDetector(path, data=lowering.contents(order[:count])).score_pixels
        try:
            found = compare(detector.score_pixels, exported, checked(), path, allowed)
        except UserError as error:
            if count == counts[-1]:
                raise
            log.info("not with %d of %d parts in int8: %s", count, total, str(error).partition("not written: ")[2])
            continue
        break
    left = ", ".join(sorted(order[count:]))
    log.info("in int8: %d of the %d parts of the blocks%s", count, total, f"; in float32: {left}" if left else "")
    data = lowering.calibrated(order[:count], good)
    return data, OpenVinoDetector(path, data=data).score_pixels, *found


def converted(detector: Detector, kind: str, path: Path) -> tuple[Contents, ScorePixels]:
    """The contents of an exported file, or of the two of OpenVINO, and what scores with them."""
    metadata = describe(detector.settings, detector.calibration, detector.reading.regions)
    program = trace(detector.method, detector.view.sides)
    if kind == "pt2":
        archive = to_pt2(program, metadata)
        return (archive,), read_pt2(archive)[0]
    onnx = to_onnx(program, metadata)
    if kind == "onnx":
        return (onnx,), OnnxDetector(path, data=(onnx,)).score_pixels
    both = to_openvino(onnx, dumps(metadata))
    return both, OpenVinoDetector(path, data=both).score_pixels


def at_threshold(detector: Detector) -> Detector | None:
    """A detector whose memories hold one item again and again, or None if it has no memory.

    Every weight then is at the threshold of the shrinkage, and rounding must not decide on which side.
    """
    if not any(isinstance(module, MemoryModule) for module in detector.method.modules()):
        return None
    twin = copy.copy(detector)
    twin.method = copy.deepcopy(detector.method)
    with torch.no_grad():
        for module in twin.method.modules():
            if isinstance(module, MemoryModule):
                module.items.copy_(module.items[:1].expand_as(module.items))
    return twin


def images_of_run(detector: Detector) -> list[Path]:
    """``CHECKED`` images of the run's data: training images and each kind of the others in turn."""
    data = data_of_run(detector)
    every = (*data.train, *data.validation, *data.test)
    kinds = grouped(((sample.category, sample.split, sample.defect), sample) for sample in every)
    in_turn = [sample.path for turn in zip_longest(*kinds.values()) for sample in turn if sample is not None]
    return in_turn[: max(CHECKED, len(kinds))]


def good_of_run(detector: Detector) -> list[Path]:
    """At most ``MOVED_BY`` of the images that the run was trained on, evenly spaced."""
    paths = [sample.path for sample in data_of_run(detector).train]
    return paths[:: -(-len(paths) // MOVED_BY)]


def held_out_of_run(detector: Detector) -> list[Path]:
    """At most ``CHECKED`` of the good images that the run was not trained on, or of the others if there are none."""
    _, trained, held = good_split(detector.settings, detector.run)
    paths = [sample.path for sample in held or trained]
    return paths[:: -(-len(paths) // CHECKED)]


def data_of_run(detector: Detector) -> Dataset:
    """The run's data. ``UserError`` if they are not there any more."""
    settings = detector.settings
    try:
        if settings.data != SYNTHETIC and not Path(settings.data).is_dir():
            raise UserError(f"{settings.data}: the training data are not there any more")
        return open_dataset(data_folder(settings, detector.run), settings.category or None)
    except UserError as error:
        raise UserError(f"{error.marked}; name images to compare on with `check`") from None


def images(detector: Detector, paths: Sequence[Path]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Files as the network sees them, in batches of three and a rest: the size of a batch must not matter."""
    view = detector.view
    for batch, seen in readable_batches(paths, view, 3, detector.reading):
        if not view.tile:
            yield [str(loaded.path) for loaded in batch], seen
            continue
        places = view.places(*seen.shape[1:3])
        for pixels in view.batches(seen[0], places[:: -(-len(places) // TILES_CHECKED)], 3):
            yield [str(batch[0].path)] * len(pixels), pixels


def with_drawn(detector: Detector, paths: Sequence[Path], good: Sequence[Path]) -> Inputs:
    """``good`` images (or ``paths``, without any) with a defect drawn onto each, themselves, and ``paths``."""
    generator = np.random.default_rng(0)
    kinds = cycle(DRAWN)
    for names, seen in images(detector, good or paths):
        damaged = [draw_defect(pixels, next(kinds), generator)[0] for pixels in seen]
        yield [f"{name} with a drawn defect" for name in names], np.stack(damaged)
    yield from images(detector, [*good, *paths])


def made_images(size: tuple[int, int]) -> tuple[list[str], np.ndarray]:
    """Images that no camera makes: a single colour, so that nothing varies, and noise."""
    flat = [np.full((*size, 3), level, np.uint8) for level in (0, 127, 255)]
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return ["a black image", "a grey image", "a white image", "an image of noise"], np.stack([*flat, noise])


def rounded_otherwise(detector: Detector, pixels: np.ndarray) -> list[Scored]:
    """The maps and scores of images, and those if the input is rounded in ``ROUNDED`` other ways.

    A network may make much of a last digit, above all if a map is divided by how little good images vary at a place.
    """
    given, generator = to_images(pixels, detector.device), torch.Generator().manual_seed(0)
    found = []
    for turn in range(1 + ROUNDED):
        way = torch.randint(-1, 2, given.shape, generator=generator).to(given) * min(turn, 1)
        maps, scores = detector.anomaly(given * (1 + way * torch.finfo(given.dtype).eps))
        found.append((maps.cpu().numpy(), scores.cpu().numpy()))
    return found


def compare(
    run: ScorePixels,
    exported: ScorePixels,
    inputs: Inputs,
    out: StrPath,
    allowed: Mapping[str, float],
    scales: Mapping[str, float] | None = None,
    again: Callable[[np.ndarray], list[Scored]] | None = None,
) -> tuple[int, dict[str, float]]:
    """Score images with the run and with the exported function; ``(count, largest relative differences)``.

    ``scales`` are what a map or score is relative to if it is smaller. ``again`` gives the run's maps and scores once
    more, and then for input that is rounded otherwise: twice what those differ by is allowed too. ``UserError`` names
    the image and what differs if a score or map is not finite, or further apart than ``allowed``.
    """
    count, worst = 0, dict.fromkeys(allowed, 0.0)
    for names, pixels in inputs:
        wanted, found = run(pixels), exported(pixels)
        others: list[Scored] | None = None
        for (part, what), (place, name) in itertools.product(enumerate(("map", "score")), enumerate(names)):
            want, got = wanted[part][place], found[part][place]
            for who, value in (("run itself", want), ("exported model", got)):
                if not np.isfinite(value).all():
                    raise UserError(f"{out}: not written: for {name} the {who} gives a {what} with NaN or infinity")
            scale = scales[what] if scales else 0.0
            gap, limit = difference(got, want, scale), allowed[what]
            worst[what] = max(worst[what], gap)
            if gap > limit and again is not None:
                others = again(pixels) if others is None else others
                first, *rounded = (scored[part][place] for scored in others)
                limit = min(limit + OWN * max(difference(one, first, scale) for one in rounded), MOST)
            if gap > limit:
                raise UserError(
                    f"{out}: not written: for {name} the {what} of the exported model differs from the run's "
                    f"{by_how_much(gap, limit)}"
                )
        count += len(names)
    return count, worst


def by_how_much(gap: float, allowed: float) -> str:
    """A difference and the limit that it is beyond, with as many digits, 3 at least, as tell them apart."""
    digits = next((n for n in range(2, 17) if float(f"{gap:.{n}e}") > allowed), 17)
    lower = allowed >= TOLERANCES["int8"]["score"] * MARGIN
    mend = "leave out `precision=int8`" if lower else "give the run itself to predict"
    return f"by {gap:.{digits}e} relative; at most {allowed:.{digits}e} is allowed; {mend}"


def difference(got: np.ndarray, want: np.ndarray, scale: float = 0.0) -> float:
    """Largest absolute difference of finite numbers over the largest absolute value, or ``scale`` if that is larger."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    return float(np.abs(got - want).max() / max(np.abs(want).max(), abs(scale), 1e-30))
