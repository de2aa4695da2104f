"""vitlite train."""

import shlex
from pathlib import Path

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note
from vitlite.cli._stopping import Stopped
from vitlite.methods import REGISTRY


@click.command(
    name="train", epilog="Example: vitlite train --method sivt --data mvtec --category bottle --out runs/bottle"
)
@click.option("--method", help=f"The method to train: {', '.join(REGISTRY)}.")
@click.option(
    "--data", metavar="DIR", help="A data set (docs/data.md) or a folder of good images.  [default: synthetic]"
)
@click.option("--category", metavar="NAME|all", help="A category, several with commas, or all in one model.")
@click.option("--out", metavar="RUN", help="The folder for the run.  [default: runs/METHOD]")
@click.option("--preset", metavar="NAME", help="paper, or quick for two CPU cores.  [default: quick]")
@options.overrides
@click.option("--weights", metavar="auto|none|PATH", help="Weights of the backbone; the same as --set weights=...")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The seed of everything random.  [default: 0]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@options.device
@options.deterministic
@options.verbosity
def command(
    method: str | None,
    data: str | None,
    category: str | None,
    out: str | None,
    preset: str | None,
    overrides: tuple[str, ...],
    weights: str | None,
    seed: int | None,
    resume: bool,
    device: str,
    deterministic: bool,
) -> None:
    """Train a detector on good images.

    Writes config.toml, checkpoint.pt, log.jsonl and calibration.json into the run's folder. Some of the good images
    are held out to set the threshold; test images are never looked at.
    """
    from vitlite.engine.distributed import deterministic as only_deterministic
    from vitlite.engine.settings import CONFIG_FILE, apply_overrides, load_settings, new_settings, preset_config
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
            raise UserError(f"{', '.join(clash)}: not together with --resume, which goes on with {out}/{CONFIG_FILE}")
        settings = load_settings(out)
    else:
        if method is None:
            raise UserError("--method: say which, as in --method sivt")
        preset, out = preset or "quick", out or f"runs/{method}"
        config = apply_overrides(preset_config(method, preset), overrides)
        settings = new_settings(method, config, data or None, category, preset, seed or 0)
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
