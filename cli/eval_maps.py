"""``vitlite eval-maps``: score anomaly maps that are already on disk."""

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(epilog="Example: vitlite eval-maps maps --data mvtec --category bottle --out results")
@click.argument("maps", metavar="MAPS", type=click.Path())
@click.option("--data", metavar="DIR", required=True, type=click.Path(), help="The data set, with masks.")
@click.option(
    "--category", metavar="NAME", default="all", show_default=True, help="One category, several with commas, or all."
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(),
    help="Where results.json, results.csv and scores.csv go.  [default: MAPS]",
)
@options.mask_threshold
@options.streaming
@options.verbosity
def command(maps: str, data: str, category: str, out: str | None, mask_threshold: int | None, streaming: bool) -> None:
    """Score anomaly maps against the ground truth, at the images' original resolution.

    MAPS holds one map for each test image, as the official MVTec AD evaluation scripts expect them:
    MAPS/<category>/test/<defect>/<stem>.tiff (32-bit float; .tif and .npy are read as well). The score of an image is
    the largest value of its map. The table and the files are those of `vitlite eval`, without verdicts.
    """
    from vitlite.engine.evaluate import evaluate_folder
    from vitlite.files import refuse_unwritable
    from vitlite.results import table, write

    place = maps if out is None else out
    if out is not None:
        refuse_unwritable(out)
    results = evaluate_folder(maps, data, category, mask_threshold=mask_threshold, streaming=streaming, out=place)
    written = write(place, results)
    click.echo(table(results))
    note(f"written: {', '.join(map(str, written))}")
