"""Options that several commands have."""

import logging
from collections.abc import Callable
from typing import Any

import click

from vitlite.cli._messages import LOGGER
from vitlite.files import MAX_MEGAPIXELS

Command = Callable[..., Any]

run = click.argument("run", metavar="RUN")
data = click.option(
    "--data", metavar="DIR", help="Data set with labelled test images.  [default: the data of training]"
)
category = click.option("--category", metavar="NAME|all", help="A category, several with commas, or all.")
overrides = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a setting of the preset; repeatable."
)
mask_threshold = click.option(
    "--mask-threshold",
    metavar="N",
    type=click.IntRange(0, 65534),
    help="A pixel of a mask above N is a defect.  [default: what the masks of a category say]",
)
streaming = click.option(
    "--streaming", is_flag=True, help="For sets that do not fit into memory: keep no maps; prints a bound on the error."
)
max_megapixels = click.option(
    "--max-megapixels",
    type=click.FloatRange(min=0, min_open=True),
    default=MAX_MEGAPIXELS,
    show_default=True,
    metavar="N",
    help="Leave out larger images; they need memory.",
)
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
sensitivity = click.option(
    "--sensitivity", metavar="low|normal|high", help="Thresholds for 1 %, 5 % or 15 % false alarms among good images."
)
threshold = click.option(
    "--threshold",
    type=float,
    metavar="SCORE",
    help="A threshold of your own: an image with a score above it is defective.",
)
pixel_threshold = click.option(
    "--pixel-threshold", type=float, metavar="VALUE", help="The same for the pixels of the map, which make the boxes."
)
min_area = click.option(
    "--min-area",
    type=click.IntRange(min=0),
    metavar="PIXELS",
    help="Regions of fewer pixels of the image are no defect; an image without a larger one is good.",
)
deterministic = click.option(
    "--deterministic", is_flag=True, help="Refuse operators whose results vary from run to run."
)


def verbosity(command: Command) -> Command:
    """``--verbose`` and ``--quiet``, which set the level of the logger."""
    for flag, level, about in (
        ("quiet", logging.ERROR, "Print errors and tables alone."),
        ("verbose", logging.DEBUG, "Print details too."),
    ):
        names = (f"-{flag[0]}", f"--{flag}")
        command = click.option(*names, is_flag=True, expose_value=False, callback=_set_level(level), help=about)(
            command
        )
    return command


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, param: click.Parameter, given: bool) -> None:
        if given:
            if ctx.meta.setdefault(LOGGER.name, param.name) != param.name:
                raise click.UsageError("--quiet: not together with --verbose; give one of them")
            LOGGER.setLevel(level)

    return callback


def computing(command: Command) -> Command:
    """What commands that train or score a whole data set have."""
    return max_megapixels(device(deterministic(verbosity(command))))
