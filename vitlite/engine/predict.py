"""A verdict on every image of a list or a folder, and files for people. Needs no torch."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vitlite.answers import Asked, Sender, Wanted, answer
from vitlite.data import list_images
from vitlite.data.listing import path_list
from vitlite.data.parts import PARTS_FILE, Parts, write_parts
from vitlite.data.photographs import photographs
from vitlite.data.prediction_files import (
    COLUMNS,
    CSV_FILE,
    FILES,
    cells,
    files_of,
    kept_rows,
    make_folders,
    not_written_here,
    refuse_replacing,
    remove_whole,
    warn_of_formats,
    warn_of_overlays,
)
from vitlite.data.shards import Shard
from vitlite.errors import UserError
from vitlite.files import StrPath, make_folder, refuse_unwritable
from vitlite.images.known import Strange
from vitlite.images.loading import LeftOut, Unread
from vitlite.ledger import Ledger
from vitlite.limits import limits_for
from vitlite.predictor import Predictor, check_batch_size
from vitlite.progress import Progress

log = logging.getLogger(__name__)


def predict(
    detector: Predictor,
    inputs: StrPath | Iterable[StrPath],
    out: StrPath | None = None,
    *,
    overlays: bool = True,
    maps: bool = False,
    parts: bool = False,
    category: str | None = None,
    batch_size: int = 8,
    resume: bool = False,
    overwrite: bool = False,
    sensitivity: str | None = None,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    min_area: int | None = None,
    shard: str | None = None,
    group_by: str | None = None,
    emit: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Score files, folders or patterns; write predictions.csv, overlays and (``maps``) float TIFFs into ``out``.

    All overlays of all calls share one scale, fixed by the calibration. Images below ``out`` are those that an earlier
    call wrote there: if a given folder holds them, they are left out. A row is written as soon as its image is scored.
    At the end predictions.csv is put into the order of the images.

    Args:
        detector: a run's or an exported file's.
        inputs: the images.
        out: the folder for what is written; None: nothing is.
        overlays: draw them.
        maps: write the maps.
        parts: draw each image beside its reconstruction and the parts of its map, as far as the method has them.
        category: use the thresholds, and the region, of this category. Default, for a model of several: those of the
            category that a folder above the image is named after, or else the thresholds of the whole model.
        batch_size: images, or tiles of one, that go through the network at a time.
        resume: keep the rows with a verdict that an earlier call left in ``out``, and score the other images. The
            detector, the thresholds and all arguments but ``inputs``, which may hold more images, have to be the same.
        overwrite: remove what an earlier call left in ``out``. A file that no earlier call wrote is never replaced.
        sensitivity: low, normal or high: thresholds for 1 %, 5 % or 15 % false alarms in the place of the calibrated.
        threshold: takes the place of the thresholds for images.
        pixel_threshold: takes the place of the thresholds for pixels.
        min_area: takes the place of the calibrated one: regions of fewer pixels of the image are no defect.
        shard: ``I/N`` for share I of N of the images, whose table is below ``out``. The call that ends last makes the
            predictions.csv of all shares.
        group_by: a regular expression; images whose names agree in what it finds show one part, and parts.csv has a
            verdict for each part.
        emit: takes each new row as soon as its image is scored, with what is known of its part.
    Returns:
        list: the rows of predictions.csv, one dict per file in order, of a share those of its images. A file that
        cannot be read, or an image that does not fit into memory, is a row with the reason as its ``error``. So is an
        image without a verdict, which has its score, NaN or infinite, as well.
    Raises:
        UserError: ``inputs`` stand for no image, or name one in ``out``; the category is unknown; ``out`` holds
            predictions and neither ``resume`` nor ``overwrite`` is given, or no predictions but a file that would be
            replaced; or they cannot be gone on with; an argument needs ``out``; a sensitivity stands beside a
            threshold, or a threshold is not finite.
    """
    check_batch_size(batch_size)
    check_out(out, resume=resume, overwrite=overwrite, maps=maps, parts=parts, shard=shard)
    limiting = (sensitivity, threshold, pixel_threshold, min_area)
    wanted = Wanted(overlays and out is not None, maps, category, batch_size, *limiting, parts)
    share = Shard.parse(shard) if shard is not None else None
    grouped = Parts(group_by) if group_by is not None else None
    inputs = path_list(inputs)
    every = list_images(inputs) if out is None else not_written_here(list_images(inputs), inputs, out)
    every, apart = photographs(every, inputs)
    if apart:
        log.warning(apart)
    warn_of_overlays(every)
    warn_of_formats(inputs)
    if grouped is not None:
        grouped.check(every)
    wanted.check(detector.calibration, detector.without_parts)
    limits = limits_for(every, detector.calibration, category, **wanted.changes)
    chosen = share.places(len(every), batch_size) if share else range(len(every))
    names = files_of(every, wanted.files)
    images = [Asked(every[i], names[i], limits[i]) for i in chosen]
    rows: dict[int, dict[str, Any]] = {}
    if out is None:
        _score(detector, wanted, None, images, rows, Sender(None, grouped, emit))
        return [rows[i] for i in range(len(images))]
    out = make_folder(out)
    written = [name for row in names for name in row.values()]
    refuse_replacing(out, [*written, *([PARTS_FILE] if grouped else [])])
    facts = wanted.facts(detector.digest(), detector.calibration)
    with share.ledger(out, every, facts) if share else Ledger(out / CSV_FILE, COLUMNS, FILES, facts) as ledger:
        own = [name for image in images for name in image.files.values()]
        earlier = ledger.begin(resume=resume, overwrite=overwrite, names=own + [CSV_FILE] * bool(share))
        if share and overwrite:
            remove_whole(ledger, set(written))
        make_folders(out, wanted.files, alone=share is None)
        rows = kept_rows(ledger, earlier, [i.path for i in images], [i.files for i in images], batch_size)
        if earlier:
            log.info("%d of %d images have their row already", len(rows), len(images))
        _score(detector, wanted, out, images, rows, Sender(ledger, grouped, emit))
        ordered = [rows[i] for i in range(len(images))]
        ledger.finish(map(cells, ordered))
        if share:
            share.merge(out, every, batch_size, facts, group_by)
        elif group_by is not None:
            write_parts(out, group_by, ordered)
    return ordered


def check_out(out: StrPath | None, **wanted: Any) -> None:
    """``UserError`` for ``out`` that is a file, what needs ``out``, and two that exclude each other."""
    for name, value in wanted.items():
        if out is None and value:
            raise UserError(f"`{name}={value}`: needs `out`, a folder")
    if out is not None:
        refuse_unwritable(out)
    if wanted.get("resume") and wanted.get("overwrite"):
        raise UserError("`overwrite=True`: not together with `resume=True`")


def _score(
    detector: Predictor,
    wanted: Wanted,
    out: Path | None,
    images: Sequence[Asked],
    rows: dict[int, dict[str, Any]],
    send: Sender,
) -> None:
    """Score the images that have no row in ``rows`` yet, and send and keep each row as soon as it is there."""
    for index in sorted(rows):
        send.count(rows[index])
    left = [i for i in range(len(images)) if i not in rows]
    # Files that cannot be read wait until an image can be: if none can, the caller says it once.
    waiting: list[tuple[Path, str]] = []
    read = bool(rows)
    unread, undecided = LeftOut(log.warning, "not read:"), LeftOut(log.warning, "no verdict:")
    with Progress("scoring", len(images), start=len(rows)) as progress:
        for place, row, readable in scored(detector, wanted, out, [images[i] for i in left]):
            rows[left[place]] = row
            if readable:
                progress.step()
                read = True
                if "error" in row:
                    undecided.add(images[left[place]].path, row["error"])
            else:
                waiting.append((images[left[place]].path, row["error"]))
            send(row)
            while read and waiting:
                unread.add(*waiting.pop(0))
    unread.end()
    undecided.end()


def scored(
    detector: Predictor, wanted: Wanted, out: Path | None, images: Sequence[Asked], strange: Strange | None = None
) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Yield, in order, the place of an image, its row, and whether its file could be read, as soon as it is scored.

    ``strange`` as for ``score_files``.
    """
    waiting: dict[int, tuple[int, dict[str, Any], bool]] = {}
    following = 0
    paths = [image.path for image in images]
    parts_of = partial(detector.parts_of, batch_size=wanted.batch_size)
    for found in detector.score_files(
        paths,
        batch_size=wanted.batch_size,
        keep_original=wanted.overlays or wanted.parts,
        category=wanted.category,
        strange=strange,
    ):
        loaded = found if isinstance(found, Unread) else found[0]
        image = images[loaded.index]
        if isinstance(found, Unread):
            row: dict[str, Any] = {"error": found.reason}
        else:
            row = answer(*found, out, image.files, image.limits, detector.calibration, parts_of)
        row["file"] = str(image.path)
        waiting[loaded.index] = loaded.index, row, not isinstance(found, Unread)
        while following in waiting:  # a file that cannot be read is known before those of its batch are scored
            yield waiting.pop(following)
            following += 1
