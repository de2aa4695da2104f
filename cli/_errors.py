"""What the command line says about an error: one line, with the options of the command."""

import re

import click

from vitlite.errors import MARK, UserError

# In torch's messages; its errors for the CPU and for CUDA have no common class but RuntimeError.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
# By the name of a command's option: what makes the command need less memory.
NEEDS_LESS = {
    "overrides": "a smaller `image_size` or `batch_size` needs less",
    "streaming": "`streaming=True` needs less",
    "no_overlays": "`no_overlays=True` needs less",
}


def in_options(message: str, command: click.Command) -> str:
    """A message of the library, in which backticks mark arguments, as the user of ``command`` has to write them.

    A name becomes its option, with the value if the option takes one: ``resume=True`` is ``--resume``. A name that is
    no option of the command is a setting of the method, if the command has ``--set``.
    """
    commands = [command, *command.commands.values()] if isinstance(command, click.Group) else [command]
    params = {p.name: p for c in commands for p in c.params}

    def spelled(found: re.Match[str]) -> str:
        name, value = found.groups()
        param = params.get(name)
        if isinstance(param, click.Argument):
            return value or param.human_readable_name
        if isinstance(param, click.Option):
            option = max(param.opts, key=len)
            return option if value is None or param.is_flag else f"{option} {value}"
        return f"--set {found[0][1:-1]}" if "overrides" in params else found[0][1:-1]

    return MARK.sub(spelled, message)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory of the machine or of a GPU was short."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def out_of_memory(error: Exception, command: click.Command | None = None) -> str:
    """What to say if memory was short: with the options of ``command``, if any, that need less."""
    first = "".join(str(error).strip().splitlines()[:1])
    names = {param.name for param in command.params} if command else set()
    advice = [in_options(text, command) for name, text in NEEDS_LESS.items() if command and name in names]
    return "; ".join([f"out of memory ({first[:160]})" if first else "out of memory", *advice])


def in_one_line(error: Exception) -> str | None:
    """What to say about an error that the user or the machine caused; None for a mistake in vitlite itself."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        # Exported models are scored without torch; everything else says that it is missing.
        return "this needs torch: pip install torch (scoring an exported .onnx file does not)"
    if is_out_of_memory(error):
        return out_of_memory(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None
