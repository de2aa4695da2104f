"""What the library says while it works: plain lines on standard error, as many as ``-v`` and ``-q`` ask for."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import click

LOGGER = logging.getLogger("vitlite")


class _Lines(logging.Handler):
    """Each message as one plain line on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Within it the messages of the library are printed."""
    handler, before = _Lines(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)


def verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--verbose`` and ``--quiet`` to a command."""
    verbose = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_level(logging.DEBUG), help="Print details too."
    )
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_level(logging.ERROR),
        help="Print errors and tables alone.",
    )
    return verbose(quiet(command))


def _level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def choose(ctx: click.Context, param: click.Parameter, given: bool) -> None:
        if given:
            LOGGER.setLevel(level)

    return choose


def note(line: str) -> None:
    """Print what a command has done on standard output, unless ``--quiet`` is given."""
    if LOGGER.isEnabledFor(logging.INFO):
        click.echo(line)
