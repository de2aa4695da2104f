"""The command line: parses options, calls vitlite, prints.

A command is one file in this folder whose name is the command's (dashes become underscores) and which defines
``command``. It is imported only when it is asked for, so that ``vitlite --help`` stays quick.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from vitlite.cli._errors import in_one_line, in_options, is_out_of_memory, out_of_memory
from vitlite.cli._messages import messages
from vitlite.cli._stopping import Stopped, stoppable
from vitlite.errors import UserError

# Shown by `vitlite --help` without importing the commands themselves.
COMMANDS = {
    "train": "Train a detector on good images.",
    "eval": "Score a trained detector on labelled test images.",
    "predict": "Score images and draw where they are defective.",
    "serve": "Score images that come in over HTTP, with a page for people.",
    "report": "Write a page with scores, curves and heat maps of test images.",
    "calibrate": "Set the thresholds anew from good images.",
    "update": "Add good images to a trained detector.",
    "ablate": "Run a method's ablation table beside the paper's figures.",
    "export": "Write a trained detector as an ONNX, pt2 or OpenVINO file.",
    "eval-maps": "Score anomaly maps that are already on disk.",
    "data": "Check a data set, or make a synthetic one.",
    "bench": "Measure operators, metrics and whole methods.",
    "doctor": "Say what is installed, what is active, and why not.",
}


class _Commands(click.Group):
    """A group that imports a command's file on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"vitlite.cli.{name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, and what follows it; nothing of that may be empty."""
        _refuse_empty(args)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. What an error names or advises is spelled as options of that command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            message = in_options(error.marked, command) if command else str(error)
            raise click.ClickException(message) from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            raise click.ClickException(out_of_memory(error, command)) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _refuse_empty(args: Sequence[str]) -> None:
    """An empty word is a variable of a script that has no value: it must not mean what leaving it out means."""
    for before, word in zip(("", *args), args, strict=False):
        name = before if before.startswith("--") else "an argument"
        if word == "" or (word.startswith("--") and word.find("=") == len(word) - 1):
            raise click.ClickException(f"{word[:-1] or name}: is empty; give a value, or leave it out")


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vitlite")
def group() -> None:
    """Industrial visual anomaly detection with vision transformers.

    Train on good images, then find the defective ones and where they are defective.

    Example: vitlite train --method sivt --data mvtec --category bottle --out runs/bottle
    """


def wait_without_spinning() -> None:
    """Let OpenMP's threads sleep soon while they wait for others, unless the user says how they wait. Before torch.

    By itself they spin, on the core that the thread needs which they wait for if the cores have other work: an image
    then takes 20 times as long with two threads as with one.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Entry point.

    Exit codes: 0 done, 1 images defective (``predict --fail-on-defect``), 2 wrong use or bad input, 3 images without a
    verdict (``predict``), 130 and 143 stopped by Ctrl-C and by SIGTERM.
    """
    wait_without_spinning()
    try:
        with stoppable(), messages():
            sys.exit(group.main(args=args, prog_name="vitlite", standalone_mode=False) or 0)
    except Stopped as stop:
        click.echo(f"vitlite: {stop}", err=True)
        sys.exit(stop.exit_code)
    except click.exceptions.Abort:
        click.echo("vitlite: interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        line = in_one_line(error)
        if line is None:
            raise
        click.echo(f"vitlite: {line}", err=True)
        sys.exit(2)
