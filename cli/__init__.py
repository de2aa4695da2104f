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
    "ablate": "Run a method's ablation table beside the paper's figures.",
    "export": "Write a trained detector as one ONNX or pt2 file.",
    "eval-maps": "Score anomaly maps that are already on disk.",
    "data": "Check a data set, or make a synthetic one.",
    "bench": "Measure operators, metrics and whole methods.",
    "doctor": "Say what is installed, what is active, and why not.",
}


# In torch's messages; its errors for the CPU and for CUDA have no common class but RuntimeError.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class _Commands(click.Group):
    """A group that imports a command's file on first use."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"vitlite.cli.{name.replace('-', '_')}").command

    def invoke(self, ctx):
        """Run a command. The arguments that an error names become the options of that command."""
        from vitlite.errors import UserError

        try:
            return super().invoke(ctx)
        except UserError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand)
            raise click.ClickException(in_options(error.marked, command)) from error

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
    """Entry point.

    Exit codes: 0 done, 1 images defective or not read (``predict --fail-on-defect``), 2 wrong use or bad input, 130 and
    143 stopped by Ctrl-C and by SIGTERM.
    """
    from vitlite.cli._messages import messages
    from vitlite.cli._stopping import Stopped, stoppable

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


def in_options(message, command):
    """A message of the library, in which backticks mark arguments, as the user of ``command`` has to write them.

    A name becomes its option, with the value if the option takes one: ``resume=True`` is ``--resume``. A name that is
    no option of the command is a setting of the method, if the command has ``--set``.
    """
    from vitlite.errors import MARK

    params = {p.name: p for c in (command, *getattr(command, "commands", {}).values()) for p in c.params}

    def spelled(found):
        name, value = found.groups()
        param = params.get(name)
        if isinstance(param, click.Argument):
            return value or param.human_readable_name
        if param is not None:
            option = max(param.opts, key=len)
            return option if value is None or param.is_flag else f"{option} {value}"
        return f"--set {found[0][1:-1]}" if "overrides" in params else found[0][1:-1]

    return MARK.sub(spelled, message)


def in_one_line(error):
    """What to say of an error that the user or the machine caused; None for a mistake in vitlite itself."""
    from vitlite.errors import UserError

    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        # Exported models are scored where there is no torch; everything else says that it is missing.
        return "this needs torch: pip install torch (scoring an exported .onnx file does not)"
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
        first = "".join(str(error).strip().splitlines()[:1])
        return f"out of memory ({first[:160]}); a smaller image_size or batch_size needs less"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None
