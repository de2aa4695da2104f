"""What the command line says about an error: one line, with the options of the command."""

import difflib
import re

import click

from vitlite.errors import MARK, UserError, first_line

# In torch's messages; its errors for the CPU and for CUDA have no common class but RuntimeError.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
# By the name of a command's option: what makes the command need less memory.
NEEDS_LESS = {
    "overrides": "a smaller `image_size`, `batch_size` or network needs less",
    "tile": "so does a smaller `tile`",
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
    names = {param.name for param in command.params} if command else set()
    advice = [in_options(text, command) for name, text in NEEDS_LESS.items() if command and name in names]
    return "; ".join([f"out of memory ({first_line(error)})" if str(error).strip() else "out of memory", *advice])


def in_one_line(error: Exception) -> str | None:
    """What to say about an error that the user or the machine caused; None for a mistake in vitlite itself."""
    if isinstance(error, click.UsageError):
        return wrong_use(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        # Exported models are scored without torch; everything else says that it is missing.
        return "this needs torch: pip install torch (scoring an exported .onnx file does not)"
    if is_out_of_memory(error):
        return out_of_memory(error)
    if isinstance(error, RuntimeError) and "VITLITE_ISA=" in str(error):
        return about_instruction_set(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None


def about_instruction_set(error: RuntimeError) -> str:
    """What the compiled operators say about VITLITE_ISA, without the place in their source before it."""
    return "VITLITE_ISA=" + str(error).partition("VITLITE_ISA=")[2].partition("\n")[0]


def wrong_use(error: click.UsageError) -> str:
    """What click says about arguments that it cannot take, as this project says it: what is wrong, then the fix."""
    message = error.format_message()
    command = error.ctx.command if error.ctx else None
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{name_of(error.param)}: missing; {example(error)}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        given = re.match(r"'?(.*?)'? is not ", error.message, re.DOTALL)
        value = f" {given[1]}" if given else ""
        return f"{name_of(error.param)}{value}: must be {kind_of(error.param.type)}"
    if isinstance(error, click.NoSuchOption):
        near = nearest(error.option_name, [name for p in command.params for name in p.opts] if command else [])
        return f"{error.option_name}: no such option; {near or example(error)}"
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name}: needs a value; {example(error)}"
    unknown = re.match(r"No such command '(.*?)'\.", message, re.DOTALL)
    if unknown and isinstance(command, click.Group) and error.ctx:
        known = command.list_commands(error.ctx)
        return f"{unknown[1]}: no such command; {nearest(unknown[1], known) or 'there are ' + ', '.join(known)}"
    extra = re.match(r"Got unexpected extra arguments? \((.*)\)", message, re.DOTALL)
    return f"{extra[1]}: one argument too many; {example(error)}" if extra else message


def name_of(param: click.Parameter) -> str:
    """A parameter as the user types it: the long name of an option, the word of an argument."""
    return max(param.opts, key=len) if isinstance(param, click.Option) else param.human_readable_name.rstrip(".")


def kind_of(kind: click.ParamType) -> str:
    """What a parameter takes, in words."""
    if isinstance(kind, click.Choice):
        return f"one of {', '.join(map(str, kind.choices))}"
    if isinstance(kind, click.FloatRange):
        return f"a number {'above' if kind.min_open else 'from'} {kind.min}"
    if isinstance(kind, click.IntRange):
        most = "" if kind.max is None else f" to {'2^63 - 1' if kind.max == 2**63 - 1 else kind.max}"
        return f"a whole number from {kind.min}{most}"
    return {"integer": "a whole number", "float": "a number"}.get(kind.name, f"a {kind.name}")


def nearest(name: str, known: list[str]) -> str:
    """The names that are like one that is not known; empty if there are none."""
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"nearest: {', '.join(found)}" if found else ""


def example(error: click.UsageError) -> str:
    """A call of the command that the error is about, from the end of its help."""
    command = error.ctx.command if error.ctx else None
    text = " ".join(f"{command.help or ''} {command.epilog or ''}".split()) if command else ""
    found = re.search(r"Example: (vitlite .*)", text)
    return f"for example: {found[1]}" if found else "see vitlite --help"
