"""``vitlite predict``: score images, and draw where they are defective."""

import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vitlite.cli import _options as options
from vitlite.cli import _rows as rows_as
from vitlite.cli._messages import LOGGER, note
from vitlite.cli._stopping import Stopped
from vitlite.errors import UserError
from vitlite.files import MAX_THREADS

if TYPE_CHECKING:
    from vitlite.answers import Tally
    from vitlite.data.coming import Coming


@click.command(name="predict", epilog="Example: vitlite predict runs/bottle photos/ --out checked --fail-on-defect")
@options.run
@click.argument("images", metavar="[IMAGE...]", nargs=-1)
@click.option("--out", metavar="DIR", help="The folder for predictions.csv and the overlays.")
@click.option("--watch", metavar="DIR", help="Score the images that are in DIR and all that come, until it is stopped.")
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --watch: a file that has not changed for so long is complete; 0: at once.  [default: 1]",
)
@click.option("--stdin-image", is_flag=True, help="Score one image file that comes on standard input.")
@click.option(
    "--format",
    "form",
    type=click.Choice(rows_as.FORMATS),
    help="Print the row of each image on standard output as soon as it is scored.",
)
@click.option(
    "--group-by",
    metavar="REGEX",
    help="One verdict for a part that several images show: those whose names agree in what this finds.",
)
@click.option("--shard", metavar="I/N", help="Score share I of N; the call that ends last makes the whole table.")
@click.option("--category", metavar="NAME", help="Use the thresholds, and the region, of this category of the run.")
@options.sensitivity
@options.threshold
@options.pixel_threshold
@options.min_area
@click.option("--maps", is_flag=True, help="Write the anomaly maps as 32-bit float TIFFs at the original size.")
@click.option(
    "--parts",
    is_flag=True,
    help="Draw each image beside its reconstruction and the parts of its map, if the method has them: DIR/parts.",
)
@click.option("--no-overlays", is_flag=True, help="Write the CSV alone.")
@click.option("--resume", is_flag=True, help="Go on with the predictions that are in --out.")
@click.option("--overwrite", is_flag=True, help="Replace the predictions that are in --out.")
@click.option("--fail-on-defect", is_flag=True, help="Exit with 1 if any image is defective.")
@options.max_megapixels
@options.device
@click.option(
    "--threads", type=click.IntRange(1, MAX_THREADS), metavar="N", help="Threads that the network uses.  [default: all]"
)
@click.option(
    "--precision",
    type=click.Choice(("float32", "bfloat16")),
    default="float32",
    show_default=True,
    help="Of the trained network of sivt: bfloat16 is faster on many processors, and changes scores a little.",
)
@options.deterministic
@options.verbosity
def command(
    run: str,
    images: tuple[str, ...],
    out: str | None,
    watch: str | None,
    settle: float | None,
    stdin_image: bool,
    form: str | None,
    group_by: str | None,
    shard: str | None,
    maps: bool,
    parts: bool,
    no_overlays: bool,
    resume: bool,
    overwrite: bool,
    fail_on_defect: bool,
    max_megapixels: float,
    device: str,
    threads: int | None,
    precision: str,
    deterministic: bool,
    **judging: Any,
) -> None:
    """Score images and draw where they are defective.

    RUN is a run's folder, or an .onnx or .xml file that `vitlite export` wrote. Such a file needs no torch. IMAGE is a
    file, a folder or a pattern; a single - reads one path a line from standard input. Heat maps are drawn at the
    original size. The run's calibration fixes their scale, so that images can be compared. An image without a verdict
    (the file cannot be read, it does not fit into memory, or its score is not a finite number) is a row of the CSV with
    the reason.

    The thresholds and the smallest area of a defect are those of the run's calibration, unless --sensitivity,
    --threshold, --pixel-threshold or --min-area changes them for this call. If the run has several categories, an image
    belongs to the one that a folder above it is named after.

    Each row is written as soon as its image is scored. --resume goes on after an interruption: it scores the images
    that have no verdict yet. Without --out nothing is written: one image gets a sentence, and --format prints the rows
    of any number.

    Exit codes: 0 done, 1 defects found (only with --fail-on-defect), 3 some images have no verdict, 2 wrong use or no
    image could be read, 130 stopped by Ctrl-C, as --watch always is.
    """
    from vitlite.answers import Tally, Wanted
    from vitlite.api import is_exported, load
    from vitlite.data import list_images
    from vitlite.engine.predict import check_out, predict
    from vitlite.engine.watch import predict_coming

    check_source(images, watch, stdin_image, settle, shard)
    check_out(out, resume=resume, overwrite=overwrite, maps=maps, parts=parts, shard=shard)
    if out is None and form is None:
        if watch is not None or images == ("-",):
            form = "jsonl"
        elif images and len(list_images(images)) > 1:
            raise UserError("`out`: missing; give a folder, or `form=jsonl` to print a row for each image")
    wanted: dict[str, Any] = {"overlays": not no_overlays, "maps": maps, "parts": parts, **judging}
    common: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "group_by": group_by}
    scoring: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if deterministic and not is_exported(run):  # an exported file is scored on the CPU and without torch
        from vitlite.engine.distributed import deterministic as only_deterministic

        scoring = only_deterministic()
    with scoring, coming_images(images, watch, stdin_image, settle, out) as coming:
        try:
            detector = load(run, device, max_megapixels=max_megapixels, threads=threads, precision=precision)
            by_row = form is not None or out is None or coming is not None
            emit = rows_as.printer(form, group_by is not None, hide=out is not None) if by_row else None
            if coming is not None:
                tally = predict_coming(detector, coming, out, wanted=Wanted(**wanted), emit=emit, **common)
            else:
                rows = predict(detector, images, out, shard=shard, emit=emit, **wanted, **common)
                tally = Tally.of(rows)
        except Stopped as stop:
            if out is not None and not stdin_image:
                stop.hint = "; the same command with --resume goes on"
            raise
    conclude(tally, table_of(out, shard), form, shard is None and images != ("-",), fail_on_defect)


def table_of(out: str | None, shard: str | None) -> str:
    """The table that a call has written, by name: that of a share until all shares are scored; empty without --out."""
    from vitlite.data.prediction_files import CSV_FILE
    from vitlite.data.shards import Shard

    if out is None:
        return ""
    whole = Path(out) / CSV_FILE
    return str(whole if shard is None or whole.exists() else Shard.parse(shard).table(Path(out)))


def check_source(
    images: tuple[str, ...], watch: str | None, stdin_image: bool, settle: float | None, shard: str | None
) -> None:
    """``UserError`` unless images come in exactly one way, with no option of another way."""
    given = ["IMAGE"] * bool(images) + ["`watch`"] * (watch is not None) + ["`stdin_image`"] * stdin_image
    if not given:
        raise UserError(
            "no image given; name files, folders or patterns, - for a list on standard input, `watch=DIR` or "
            "`stdin_image=True`"
        )
    if len(given) > 1:
        raise UserError(f"{given[1]}: not together with {given[0]}; give one of them")
    if "-" in images and len(images) > 1:
        raise UserError("-: not together with other images; write their names into the list on standard input")
    if settle is not None and watch is None:
        raise UserError(f"`settle={settle:g}`: needs `watch=DIR`")
    if shard is not None and (not images or images == ("-",)):
        raise UserError(f"`shard={shard}`: needs all images by name; give files, folders or patterns")


@contextlib.contextmanager
def coming_images(
    images: tuple[str, ...], watch: str | None, stdin_image: bool, settle: float | None, out: str | None
) -> Iterator["Coming | None"]:
    """What yields the images that come one after another; None for those that are named."""
    from vitlite.data.coming import SETTLE, Encoded, Named, NewFiles

    if watch is not None:
        coming = NewFiles(watch, out, settle=SETTLE if settle is None else settle)
        LOGGER.info("watching %s until Ctrl-C", watch)
        yield coming
    elif images == ("-",):
        yield Named(sys.stdin.buffer)
    elif stdin_image:
        with tempfile.TemporaryDirectory(prefix="vitlite-") as folder:
            yield Encoded(sys.stdin.buffer.read(), Path(folder))
    else:
        yield None


def conclude(tally: "Tally", table: str, form: str | None, whole: bool, fail_on_defect: bool) -> NoReturn:
    """Print the counts, unless the verdict of one image is printed, and exit. ``whole``: all images are known.

    ``table``: the file with the rows; empty without one.
    """
    if whole and tally.unread == tally.images:
        others = f"; the others: {table}" if table and tally.images > 1 else ""
        raise UserError(f"none of the {tally.images} images could be read; the first: {tally.first_error}{others}")
    counts = f"{tally}; {table}" if table else str(tally)
    if tally.failed and not LOGGER.isEnabledFor(logging.INFO):
        click.echo(f"vitlite: {counts}", err=True)
    elif table and form is None:
        note(counts)
    elif form is not None:
        LOGGER.info("%s", counts)
    if tally.failed:
        sys.exit(3)
    sys.exit(1 if fail_on_defect and tally.defects else 0)
