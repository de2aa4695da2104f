"""vitlite train."""

import shlex
from pathlib import Path
from typing import Any

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note
from vitlite.cli._stopping import training_into
from vitlite.methods import DEFAULT, REGISTRY


@click.command(name="train", epilog="Example: vitlite train mvtec --category bottle --out runs/bottle")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--method", help=f"The method to train: {', '.join(REGISTRY)}.  [default: {DEFAULT}]")
@click.option(
    "--data", metavar="DIR", help="A data set (docs/data.md) or a folder of good images.  [default: synthetic]"
)
@click.option("--category", metavar="NAME|all", help="A category, several with commas, or all in one model.")
@click.option(
    "--separate",
    is_flag=True,
    help="One model for each category, RUN/CATEGORY, evaluated on its test images; again to go on.",
)
@click.option("--out", metavar="RUN", help="The folder for the run.  [default: runs/METHOD]")
@click.option(
    "--preset",
    metavar="NAME",
    help="paper; quick, for two CPU cores; of sivt and knn also quick512, of sivt long; of anovit, memca and vtadl"
    " hybrid.  [default: quick]",
)
@options.overrides
@click.option("--weights", metavar="auto|none|PATH", help="Weights of the backbone; the same as --set weights=...")
@click.option(
    "--target-fpr",
    type=float,
    help="The share of good images that may be called defective; sets the threshold.  [default: 0.05]",
)
@click.option(
    "--folds",
    type=int,
    metavar="K",
    help="Train K networks, each without 1/K of the good images, which it scores; the first is kept. 0: train one.",
)
@click.option(
    "--groups",
    metavar="REGEX",
    help="Keep good images together if their names agree in what this finds, such as 'part_([0-9]+)'.",
)
@click.option(
    "--tile",
    type=int,
    metavar="SIZE",
    help="For small defects on large images: see them in overlapping tiles of so many pixels, not whole.",
)
@click.option(
    "--scale", type=float, metavar="FACTOR", help="With --tile: pixels of a tile for one of the image.  [default: 1]"
)
@click.option(
    "--roi",
    metavar="FILE|auto",
    help="Look at this part of images alone: a mask, polygons in JSON, or a folder of either by category; auto: "
    "not at a plain background.",
)
@click.option("--ignore", metavar="FILE", help="Do not look at this part of images: a file or folder as for --roi.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The seed of everything random.  [default: 0]")
@click.option("--help-settings", is_flag=True, help="Print the settings of the method and preset, and exit.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; --set steps=N gives it a new end.")
@click.option("--init-from", metavar="RUN", help="Begin with the weights of this run, and with its settings.")
@options.computing
def command(
    folder: str | None,
    method: str | None,
    data: str | None,
    category: str | None,
    separate: bool,
    out: str | None,
    preset: str | None,
    overrides: tuple[str, ...],
    weights: str | None,
    scale: float | None,
    roi: str | None,
    ignore: str | None,
    seed: int | None,
    help_settings: bool,
    resume: bool,
    init_from: str | None,
    max_megapixels: float,
    device: str,
    deterministic: bool,
    **given: Any,
) -> None:
    """Train a detector on good images: those of DIR, which is the same as --data DIR.

    Writes config.toml, checkpoint.pt, log.jsonl and calibration.json, among others, into the run's folder. The
    threshold comes from good images, each scored by a network that has not seen it; test images are never looked at.
    With the presets paper and small, and with dinomaly, images come to the network as squares, unless --set
    image_size=keep is given; otherwise they keep their shape.
    """
    from vitlite.engine.distributed import deterministic as only_deterministic
    from vitlite.engine.settings import (
        CONFIG_FILE,
        new_settings,
        parse_overrides,
        preset_config,
        resumed_settings,
        settings_from,
    )
    from vitlite.engine.train import train
    from vitlite.errors import UserError
    from vitlite.methods.config import change
    from vitlite.methods.meaning import described

    if help_settings:
        method, preset = method or DEFAULT, preset or "quick"
        lines = described(change(preset_config(method, preset), parse_overrides(overrides)))
        click.echo(f"--method {method} --preset {preset}; --set KEY=VALUE changes a setting")
        click.echo("\n".join(lines))
        return
    if folder is not None and data is not None:
        raise UserError(f"--data: not together with {folder}, which names the data too; give one of them")
    data = folder if data is None else data
    category = category or ("all" if separate else None)
    changes = parse_overrides(overrides)
    given["image_size"] = tile_side(given["tile"], scale)
    given = {key: value for key, value in given.items() if value is not None}
    for key in given.keys() & changes.keys():
        option = "--scale" if key == "image_size" else f"--{key.replace('_', '-')}"
        raise UserError(f"{option}: not together with --set {key}=..., which means the same; give one of them")
    changes |= given
    if separate and (resume or init_from or data is None):
        clash = "--resume: the same command again goes on" if resume else "--init-from: one run has one network"
        raise UserError("--separate: needs --data DIR" if data is None else f"--separate: not together with {clash}")
    if resume:
        if out is None:
            raise UserError("--resume: say which run to go on with, as in --out runs/sivt")
        fixed = {"--method": method, "--category": category, "--preset": preset, "--seed": seed}
        fixed |= {"--init-from": init_from, "--weights": weights, "--roi": roi, "--ignore": ignore}
        clash = ", ".join(name for name, value in fixed.items() if value is not None)
        if clash:
            raise UserError(f"{clash}: not together with --resume, which goes on with {out}/{CONFIG_FILE}")
        settings = resumed_settings(out, changes, data or None)
    else:
        if init_from is not None and weights is not None:
            raise UserError("--weights: not together with --init-from, whose weights are taken")
        if init_from is not None:
            settings = settings_from(init_from, method, data or None, category, preset, seed or 0, changes, roi, ignore)
        else:
            method, preset = method or DEFAULT, preset or "quick"
            config = preset_config(method, preset)
            if weights is not None and not hasattr(config, "weights"):
                raise UserError(f"--weights: {method} has no weights to load; leave it out")
            config = change(config, changes if weights is None else {**changes, "weights": weights})
            settings = new_settings(method, config, data or None, category, preset, seed or 0, roi=roi, ignore=ignore)
        out = out or f"runs/{settings.method}"
    if separate:
        from vitlite.engine.ablate import SEPARATE_FILE, train_separate
        from vitlite.report.ablation import separate_text

        with only_deterministic(deterministic):
            rows = train_separate(settings, out, device, max_megapixels=max_megapixels)
        click.echo(separate_text(rows))
        note(f"written: {Path(out) / SEPARATE_FILE}")
        return
    with training_into(out, "--resume"), only_deterministic(deterministic):
        done = train(settings, out, device=device, resume=resume, max_megapixels=max_megapixels)
    if done is not None:  # None: one of several processes, and not the one that writes
        # To be pasted into a shell. A plain folder has nothing to evaluate on, so predict comes first.
        run = shlex.quote(out)
        note(f"trained: {out}\nnext: vitlite predict {run} IMAGE... --out DIR")
        note(f"with labelled test images: vitlite eval {run}")


def tile_side(tile: int | None, scale: float | None) -> int | None:
    """The `image_size` that a scale of tiles stands for; None without one."""
    from vitlite.errors import UserError
    from vitlite.methods.config import MOST_SIDE, too_large

    if scale is None:
        return None
    if tile is None:
        raise UserError("--scale: needs --tile SIZE")
    if not 0 < scale < float("inf"):
        raise UserError(f"--scale {scale}: must be above 0 and finite")
    if abs(tile * scale) > MOST_SIDE:
        raise UserError(f"--scale {scale:g}: makes {tile * scale:.0f} pixels of a tile of {tile}; {too_large()}")
    return round(tile * scale)
