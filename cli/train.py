"""vitlite train."""

import os
import shlex
import sys
from pathlib import Path

import click

from vitlite.cli._messages import note, verbosity
from vitlite.methods import REGISTRY


@click.command(
    name="train", epilog="Example: vitlite train --method sivt --data mvtec --category bottle --out runs/bottle"
)
@click.option("--method", help=f"Method to train: {', '.join(REGISTRY)}.")
@click.option(
    "--data",
    metavar="DIR",
    help="A data set (docs/data.md) or a folder of good images.  [default: synthetic]",
)
@click.option("--category", metavar="NAME|all", help="Category, a comma list of them, or all in one model.")
@click.option("--out", metavar="RUN", help="Folder for the run.  [default: runs/METHOD]")
@click.option("--preset", metavar="NAME", help="paper, or quick for two CPU cores.  [default: quick]")
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a setting of the preset; repeatable."
)
@click.option("--weights", metavar="auto|none|PATH", help="Backbone weights; the same as --set weights=...")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of everything random.  [default: 0]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--deterministic", is_flag=True, help="Refuse operators whose results vary from run to run.")
@verbosity
def command(method, data, category, out, preset, overrides, weights, seed, resume, device, deterministic):
    """Train a detector on good images.

    Writes config.toml, checkpoint.pt, log.jsonl and calibration.json into the run's folder. Some of the good images
    are held out to set the threshold; test images are never looked at.
    """
    from vitlite.cli._stopping import Stopped
    from vitlite.engine.distributed import deterministic as only_deterministic
    from vitlite.engine.settings import (
        CONFIG_FILE,
        SYNTHETIC,
        RunSettings,
        apply_overrides,
        load_settings,
        preset_config,
    )
    from vitlite.engine.train import train
    from vitlite.errors import UserError

    if weights is not None:
        overrides = (*overrides, f"weights={weights}")
    if resume:
        if out is None:
            raise UserError("--resume: say which run to go on with, as in --out runs/sivt")
        given = {"--method": method, "--data": data, "--category": category, "--preset": preset, "--seed": seed}
        clash = [name for name, value in given.items() if value is not None] + ["--set"] * bool(overrides)
        if clash:
            raise UserError(f"{', '.join(clash)}: not together with --resume, which goes on with {out}/config.toml")
        settings = load_settings(out)
    else:
        if method is None:
            raise UserError("--method: say which, as in --method sivt")
        preset, out = preset or "quick", out or f"runs/{method}"
        config = apply_overrides(preset_config(method, preset), overrides)
        source = os.path.realpath(data) if data else SYNTHETIC
        if not data and category is None:
            category = "all"
        settings = RunSettings(method, source, category or "", preset, seed or 0, config)
    try:
        with only_deterministic(deterministic):
            done = train(settings, out, device=device, resume=resume)
    except Stopped as stop:
        begun = (Path(out) / CONFIG_FILE).exists()
        stop.hint = f"; go on with --resume --out {out}" if begun else " before training began; start it again"
        raise
    if done is not None:  # None: one of several processes, and not the one that writes
        # To be pasted into a shell. A plain folder has nothing to evaluate on, so predict comes first.
        run = shlex.quote(str(out))
        note(f"trained: {out}\nnext: vitlite predict {run} IMAGE... --out DIR")
        note(f"with labelled test images: vitlite eval {run}")
    sys.exit(0)
