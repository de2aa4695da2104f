"""``vitlite data``: check a data set, or make a synthetic one."""

from typing import Any

import click

from vitlite.cli import _options as options
from vitlite.cli._errors import in_options


@click.group()
def command() -> None:
    """Check a data set, make a synthetic one, or draw defects onto good images.

    Example: vitlite data check mvtec --category bottle
    """


@command.command(short_help="Say what a data set holds and what is wrong with it.")
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option(
    "--category",
    metavar="NAME",
    help="A category, several with commas, or all; for classes, the normal one.  [default: all]",
)
@options.mask_threshold
@options.max_megapixels
def check(folder: str, category: str | None, mask_threshold: int | None, max_megapixels: float) -> None:
    """Read every image and mask below DIR and say what is there and what is wrong.

    DIR is a data set in the layout of MVTec AD, MPDD, MVTec AD 2, MVTec LOCO AD, BTAD, VisA or KolektorSDD2, one
    category of those that have them, MNIST's idx files, CIFAR-10's batches, folders of classes, or a plain folder of
    good images; the command finds out which. Problems that training and evaluation can live with are warnings; a folder
    that cannot be used ends with exit code 2.

    Example: vitlite data check mvtec --category bottle
    """
    from vitlite import data

    report = data.check(folder, category, mask_threshold=mask_threshold, max_megapixels=max_megapixels)
    click.echo(in_options(report.text(), click.get_current_context().command))


@command.command(short_help="Write a synthetic data set.")
@click.option("--out", metavar="DIR", required=True, type=click.Path(), help="A new or empty folder.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same files.")
@click.option("--size", default=256, show_default=True, help="Height and width of an image in pixels.")
@click.option(
    "--categories",
    metavar="NAMES",
    help="Some of weave,wood,gear,metal,granite,tiles, or all.  [default: weave,wood,gear]",
)
@click.option(
    "--kinds",
    metavar="NAMES",
    help="Some of scratch,spot,missing,tiny,low-contrast,erased,soft,large, or all.  [default: the first three]",
)
@click.option("--train", default=40, show_default=True, help="Good images for training, for each category.")
@click.option("--good", default=10, show_default=True, help="Good images for testing, for each category.")
@click.option("--defects", default=6, show_default=True, help="Defective images of each kind, for each category.")
def synth(out: str, **chosen: Any) -> None:
    """Write synthetic surfaces with known defects and exact masks, in MVTec layout.

    Scratches, spots and missing pieces are strong and often dark. The kinds tiny, low-contrast, erased, soft and
    large are harder to find; most are as often brighter as darker than the surface.

    Example: vitlite data synth --out surfaces --categories metal,tiles --kinds tiny,soft --seed 1
    """
    from vitlite import data

    root = data.synthesize(out, **chosen)
    found = data.open_dataset(root, "all", need_train=False)
    click.echo(f"{root}: {', '.join(found.categories)}; {len(found.train)} training and {len(found.test)} test images")


@command.command(short_help="Draw defects onto good images.")
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--out", metavar="DIR", required=True, type=click.Path(), help="A new or empty folder.")
@click.option("--category", metavar="NAME", help="A category, several with commas, or all.")
@click.option("--kinds", metavar="NAMES", help="Some of tiny,low-contrast,erased,soft,large.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same files.")
@click.option("--good", default=10, show_default=True, help="Good images, at most as many as there are.")
@click.option("--defects", default=6, show_default=True, help="Defective images of each kind.")
def draw(folder: str, out: str, **chosen: Any) -> None:
    """Write a test set of defects that are drawn onto the good images in DIR, with exact masks, in MVTec layout.

    To check a detector fairly, give good images that it was not trained on. It says what the detector sees on your
    parts, and not how often your real defects are found.

    Example: vitlite data draw newer_good --out drawn --kinds tiny,soft
    """
    from vitlite import data

    root = data.draw_set(folder, out, **chosen)
    test = data.open_dataset(root, "all", need_train=False).test
    bad = sum(sample.label for sample in test)
    click.echo(f"{root}: {len(test) - bad} good and {bad} defective test images")


@command.command(short_help="Show how ISSTAD corrupts good images.")
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--out", metavar="FILE", required=True, type=click.Path(), help="PNG file to write.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Seed of the corruption.")
@click.option("--count", default=6, show_default=True, type=click.IntRange(1, 100), help="Number of images.")
def corrupt(folder: str, out: str, seed: int, count: int) -> None:
    """Write a contact sheet of corrupted good images: above the original, below it the corrupted copy and its label.

    DIR is a data set or a plain folder of good images. White pixels of a label are those that differ.

    Example: vitlite data corrupt surfaces --out corrupted.png
    """
    from vitlite.report.corruption import contact_sheet

    shown = contact_sheet(folder, out, seed=seed, count=count)
    click.echo(f"{out}: {shown} images, one a column: original, corrupted, label")
