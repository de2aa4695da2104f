"""``vitlite predict``: score images, and draw where they are defective."""

import contextlib
import sys

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note
from vitlite.cli._stopping import Stopped


@click.command(name="predict", epilog="Example: vitlite predict runs/bottle photos/ --out checked --fail-on-defect")
@options.run
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--out", metavar="DIR", required=True, help="The folder for predictions.csv and the overlays.")
@click.option("--category", metavar="NAME", help="Use the thresholds of this category of the run.")
@options.sensitivity
@options.threshold
@options.pixel_threshold
@options.min_area
@click.option("--maps", is_flag=True, help="Write the anomaly maps as 32-bit float TIFFs at the original size.")
@click.option("--no-overlays", is_flag=True, help="Write the CSV alone.")
@click.option("--resume", is_flag=True, help="Go on with the predictions that are in --out.")
@click.option("--overwrite", is_flag=True, help="Replace the predictions that are in --out.")
@click.option("--fail-on-defect", is_flag=True, help="Exit with 1 if any image is defective.")
@options.max_megapixels
@options.device
@options.deterministic
@options.verbosity
def command(
    run: str,
    images: tuple[str, ...],
    out: str,
    category: str | None,
    sensitivity: str | None,
    threshold: float | None,
    pixel_threshold: float | None,
    min_area: int | None,
    maps: bool,
    no_overlays: bool,
    resume: bool,
    overwrite: bool,
    fail_on_defect: bool,
    max_megapixels: float,
    device: str,
    deterministic: bool,
) -> None:
    """Score images and draw where they are defective.

    RUN is a run's folder, or an .onnx file that `vitlite export` wrote. Such a file needs no torch. IMAGE is a file, a
    folder or a pattern. Heat maps are drawn at the original size. The run's calibration fixes their scale, so that
    images can be compared. An image without a verdict (the file cannot be read, it does not fit into memory, or its
    score is not a finite number) is a row of the CSV with the reason.

    The thresholds and the smallest area of a defect are those of the run's calibration, unless --sensitivity,
    --threshold, --pixel-threshold or --min-area changes them for this call. If the run has several categories, an image
    belongs to the one that a folder above it is named after.

    Each row is written as soon as its image is scored. --resume goes on after an interruption: it scores the images
    that have no verdict yet.

    Exit codes: 0 done, 1 defects found (only with --fail-on-defect), 3 some images have no verdict, 2 wrong use or no
    image could be read.
    """
    from vitlite.api import is_exported, load
    from vitlite.engine.predict import CSV_FILE, predict
    from vitlite.errors import UserError

    scoring: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if deterministic and not is_exported(run):  # an exported file is scored on the CPU and without torch
        from vitlite.engine.distributed import deterministic as only_deterministic

        scoring = only_deterministic()
    with scoring:
        try:
            rows = predict(
                load(run, device, max_megapixels=max_megapixels),
                images,
                out,
                overlays=not no_overlays,
                maps=maps,
                category=category,
                sensitivity=sensitivity,
                threshold=threshold,
                pixel_threshold=pixel_threshold,
                min_area=min_area,
                resume=resume,
                overwrite=overwrite,
            )
        except Stopped as stop:
            stop.hint = "; the same command with --resume goes on"
            raise
    failed = [row for row in rows if "error" in row]
    unread = sum("score" not in row for row in failed)
    defects = sum(row.get("verdict") == "defect" for row in rows)
    counts = f"{defects} of {len(rows) - len(failed)} images defective, {unread} not read"
    if len(failed) > unread:
        counts += f", {len(failed) - unread} without a verdict"
    if unread == len(rows):
        first, others = failed[0]["error"], f"; the others: {out}/{CSV_FILE}" if len(rows) > 1 else ""
        raise UserError(f"none of the {len(rows)} images could be read; the first: {first}{others}")
    note(f"{counts}; {out}/{CSV_FILE}")
    if failed:
        sys.exit(3)
    sys.exit(1 if fail_on_defect and defects else 0)
