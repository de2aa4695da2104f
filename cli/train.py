"""vitlite train."""

import sys
from pathlib import Path

import click


@click.command(
    name="train", epilog="Example: vitlite train --method sivt --data mvtec --category bottle --out runs/bottle"
)
@click.option("--method", help="Method to train: sivt.")
@click.option(
    "--data", metavar="DIR", help="MVTec layout, one category, or a folder of good images.  [default: synthetic]"
)
@click.option("--category", metavar="NAME|all", help="Category, a comma list of them, or all in one model.")
@click.option("--out", metavar="RUN", default="runs/sivt", show_default=True, help="Folder for the run.")
@click.option("--preset", metavar="NAME", help="paper, or quick for two CPU cores.  [default: quick]")
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a setting of the preset; repeatable."
)
@click.option("--weights", metavar="auto|none|PATH", help="Backbone weights; the same as --set weights=...")
@click.option("--seed", type=click.IntRange(0), help="Seed of everything random.  [default: 0]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def command(method, data, category, out, preset, overrides, weights, seed, resume, device, quiet):
    """Train a detector on good images.

    Writes config.toml, checkpoint.pt, log.jsonl and calibration.json into the run's folder. Some of the good images
    are held out to set the threshold; test images are never looked at.
    """
    from vitlite.engine.settings import RunSettings, apply_overrides, load_settings, preset_config
    from vitlite.engine.train import SYNTHETIC, train
    from vitlite.errors import UserError

    if weights is not None:
        overrides = (*overrides, f"weights={weights}")
    if resume:
        given = {"--method": method, "--data": data, "--category": category, "--preset": preset, "--seed": seed}
        clash = [name for name, value in given.items() if value is not None] + ["--set"] * bool(overrides)
        if clash:
            raise UserError(f"{', '.join(clash)}: not together with --resume, which goes on with {out}/config.toml")
        settings = load_settings(out)
    else:
        if method is None:
            raise UserError("--method: say which, as in --method sivt")
        preset = preset or "quick"
        config = apply_overrides(preset_config(method, preset), overrides)
        source = str(Path(data).resolve()) if data else SYNTHETIC
        if not data and category is None:
            category = "all"
        settings = RunSettings(method, source, category or "", preset, seed or 0, config)
    say = (lambda line: None) if quiet else (lambda line: click.echo(line, err=True))
    train(settings, out, device=device, resume=resume, quiet=quiet, say=say)
    if not quiet:
        click.echo(f"trained: {out}\nnext: vitlite eval {out}   vitlite predict {out} IMAGE... --out DIR")
    sys.exit(0)
