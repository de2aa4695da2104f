"""The command line: parses options, calls vitlite, prints.

A command is one file in this folder whose name is the command's (dashes become underscores) and which defines
``command``. It is imported only when it is asked for, so that ``vitlite --help`` stays quick.
"""

import importlib
import sys

import click

# Shown by `vitlite --help` without importing the commands themselves.
COMMANDS = {
    "train": "Train a detector on good images.",
    "eval": "Score a trained detector on labelled test images.",
    "predict": "Score images and draw where they are defective.",
    "report": "Write a page with scores, curves and pictures of test images.",
    "calibrate": "Set the thresholds anew from good images.",
    "export": "Write a trained detector as one ONNX or pt2 file.",
    "eval-maps": "Score anomaly maps that are already on disk.",
    "data": "Check a data set, or make a synthetic one.",
    "bench": "Measure operators, metrics and whole methods.",
    "doctor": "Say what is installed, what is active, and why not.",
}


class _Commands(click.Group):
    """A group that imports a command's file on first use."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"vitlite.cli.{name.replace('-', '_')}").command

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vitlite")
def group():
    """Industrial visual anomaly detection with vision transformers.

    Train on good images, then find the defective ones and where they are defective.

    Example: vitlite train --method sivt --data mvtec --category bottle --out runs/bottle
    """


def main(args=None):
    """Entry point. Exit codes: 0 done, 1 defects found (``predict --fail-on-defect``), 2 wrong use or bad input."""
    from vitlite.errors import UserError

    try:
        sys.exit(group.main(args=args, prog_name="vitlite", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("vitlite: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        click.echo(f"vitlite: {error.format_message()}", err=True)
        sys.exit(2)
    except UserError as error:
        click.echo(f"vitlite: {error}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        # Exported models are scored where there is no torch; everything else says that it is missing.
        if error.name != "torch":
            raise
        click.echo("vitlite: this needs torch: pip install torch (scoring an exported .onnx file does not)", err=True)
        sys.exit(2)
