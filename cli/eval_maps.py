"""``vitlite eval-maps``: score anomaly maps that are already on disk."""

import click


@click.command()
@click.argument("maps", metavar="MAPS", type=click.Path())
@click.option("--data", metavar="DIR", required=True, type=click.Path(), help="The data set, with masks.")
@click.option(
    "--category", metavar="NAME", default="all", show_default=True, help="One category, several with commas, or all."
)
@click.option("--out", metavar="DIR", type=click.Path(), help="Where results.json and .csv go.  [default: MAPS]")
def command(maps, data, category, out):
    """Score anomaly maps against the ground truth, at the pictures' original resolution.

    MAPS holds one map for each test picture, as the official MVTec AD evaluation scripts expect them:
    MAPS/<category>/test/<defect>/<stem>.tiff (32-bit float; .tif and .npy are read as well). The score of a picture is
    the largest value of its map.

    Example: vitlite eval-maps maps --data mvtec --category bottle --out results
    """
    from vitlite.engine import results
    from vitlite.engine.evaluate import evaluate_folder

    found = evaluate_folder(maps, data, category)
    out = out or maps
    results.write(out, found)
    click.echo(results.table(found))
    click.echo(f"\n{out}/results.json and results.csv written")
