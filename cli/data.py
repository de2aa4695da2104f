"""``vitlite data``: check a data set, or make a synthetic one."""

import click


@click.group()
def command():
    """Check a data set, or make a synthetic one.

    Example: vitlite data check mvtec --category bottle
    """


@command.command(short_help="Say what a data set holds and what is wrong with it.")
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--category", metavar="NAME", help="A category, several with commas between, or all.  [default: all]")
def check(folder, category):
    """Read every picture and mask below DIR and say what is there and what is wrong.

    DIR is a folder of categories in MVTec layout, one such category, or a plain folder of good images. Problems that
    training and evaluation can live with are warnings; a folder that cannot be used ends with exit code 2.

    Example: vitlite data check mvtec --category bottle
    """
    from vitlite import data

    click.echo(data.check(folder, category).text())


@command.command(short_help="Write a synthetic data set.")
@click.option("--out", metavar="DIR", required=True, type=click.Path(), help="A new or empty folder.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same files.")
@click.option("--size", default=256, show_default=True, help="Height and width of a picture in pixels.")
@click.option(
    "--categories",
    metavar="NAMES",
    help="Some of weave,wood,gear,metal,granite,tiles, or all.  [default: weave,wood,gear]",
)
@click.option("--train", default=40, show_default=True, help="Good pictures for training, for each category.")
@click.option("--good", default=10, show_default=True, help="Good pictures for testing, for each category.")
@click.option("--defects", default=6, show_default=True, help="Defective pictures of each kind, for each category.")
def synth(out, seed, size, categories, train, good, defects):
    """Write synthetic surfaces with scratches, spots and missing pieces, with exact masks, in MVTec layout.

    Example: vitlite data synth --out surfaces --categories metal,tiles --seed 1
    """
    from vitlite import data

    root = data.synthesize(out, seed=seed, categories=categories, size=size, train=train, good=good, defects=defects)
    found = data.open_dataset(root, "all", need_train=False)
    click.echo(f"{root}: {', '.join(found.categories)}; {len(found.train)} training and {len(found.test)} test images")
