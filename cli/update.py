"""vitlite update."""

import shlex
from pathlib import Path

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note
from vitlite.cli._stopping import training_into


@click.command(name="update", epilog="Example: vitlite update runs/bottle --good newer_good/ --out runs/bottle2")
@options.run
@click.option(
    "--good",
    metavar="DIR|IMAGE",
    multiple=True,
    required=True,
    type=click.Path(),
    help="New good images: a folder, file or pattern; repeatable.",
)
@click.option("--out", metavar="NEW", required=True, help="The folder for the new run.")
@click.option("--data", metavar="DIR", help="Where RUN's own images are.  [default: where training found them]")
@options.overrides
@options.computing
def command(
    run: str,
    good: tuple[str, ...],
    out: str,
    data: str | None,
    overrides: tuple[str, ...],
    max_megapixels: float,
    device: str,
    deterministic: bool,
) -> None:
    """Add new good images to a trained detector; RUN stays as it is.

    Statistics are taken anew from the images of RUN and the new ones, and training goes on from the weights of RUN for
    a quarter of its steps (--set steps=N changes that). The thresholds come from the images that RUN held out and from
    new ones, each scored by a network that has not seen it: if RUN has folds, as many networks train. A new image that
    is nearly the same as one that RUN was trained on trains too, and sets no threshold; a line says how many of the new
    images set it. In a run of several categories, a new image belongs to the category that one of its folders is named
    after. The images of RUN have to be there still.
    """
    from vitlite.engine.checkpoint import is_free
    from vitlite.engine.distributed import deterministic as only_deterministic
    from vitlite.engine.settings import parse_overrides
    from vitlite.engine.train import train
    from vitlite.engine.update import updated_settings
    from vitlite.errors import UserError

    if not is_free(Path(out)):
        raise UserError(f"`out={out}`: already holds a run; choose another folder")
    settings = updated_settings(run, good, parse_overrides(overrides), data)
    with training_into(out, "vitlite train --resume"), only_deterministic(deterministic):
        done = train(settings, out, device=device, max_megapixels=max_megapixels)
    if done is not None:  # None: one of several processes, and not the one that writes
        note(f"updated: {out}\nnext: vitlite predict {shlex.quote(out)} IMAGE... --out DIR")
