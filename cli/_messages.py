"""What the library says while it works, as plain lines on standard error."""

import contextlib
import logging
from collections.abc import Iterator

import click

LOGGER = logging.getLogger("vitlite")


class _Lines(logging.Handler):
    """Prints each message as a plain line."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Within it the messages of the library are printed; ``LOGGER.setLevel`` chooses which."""
    handler, before = _Lines(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)


def note(line: str) -> None:
    """Print what a command has done on standard output, unless ``--quiet`` is given."""
    if LOGGER.isEnabledFor(logging.INFO):
        click.echo(line)
