"""``vitlite eval``: score a trained detector on labelled test images."""

from pathlib import Path
from typing import Any

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="eval", epilog="Example: vitlite eval runs/bottle --data mvtec --category bottle")
@options.run
@options.data
@options.category
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(),
    help="Where results.json, results.csv, scores.csv and maps go.  [default: RUN]",
)
@click.option(
    "--maps",
    is_flag=True,
    help="Write the anomaly maps into RUN/maps, or DIR/maps, for `vitlite eval-maps` and others.",
)
@click.option(
    "--scores",
    is_flag=True,
    help="Print the image AUROC of every `score` with every `places`, too. Choose nothing by test images.",
)
@options.mask_threshold
@options.streaming
@options.computing
def command(
    run: str,
    out: str | None,
    maps: bool,
    scores: bool,
    max_megapixels: float,
    device: str,
    deterministic: bool,
    **chosen: Any,
) -> None:
    """Score a trained detector on labelled test images.

    Prints image and pixel AUROC, average precision and best F1, and AUPRO to 0.3 and 0.05, at the original resolution,
    what the masks of each category mean, and how many images the calibrated threshold gets right. Writes results.json,
    results.csv and scores.csv (the score and verdict of every image) into the run's folder, or into --out, in the place
    of earlier ones. Needs test/ and ground_truth/ only. Maps are 32-bit float TIFFs at the original size,
    RUN/maps/<category>/test/<defect>/<stem>.tiff.
    """
    from vitlite.data.map_files import MAPS_FOLDER
    from vitlite.engine.detector import Detector
    from vitlite.engine.distributed import deterministic as only_deterministic
    from vitlite.engine.evaluate import evaluate
    from vitlite.files import refuse_unwritable
    from vitlite.results import table, write
    from vitlite.score_table import score_table

    place = Path(run if out is None else out)
    if out is not None:
        refuse_unwritable(out)
    folder = place / MAPS_FOLDER if maps else None
    with only_deterministic(deterministic):
        detector = Detector(run, device, max_megapixels=max_megapixels)
        refuse_unwritable(place)
        results = evaluate(detector, maps=folder, scores=scores, out=place, **chosen)
    written = write(place, results)
    click.echo(table(results))
    if scores:
        click.echo(f"\n{score_table(results['categories'])}")
    note(f"written: {', '.join(map(str, [*written, *([folder] if folder else [])]))}")
