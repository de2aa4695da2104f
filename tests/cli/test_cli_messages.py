"""Messages of the library are plain lines on standard error; -q leaves out all but errors."""

import logging
import os

import pytest
from commands import vitlite

LINES = {logging.DEBUG: "how", logging.INFO: "what", logging.WARNING: "beware", logging.ERROR: "failed"}


@pytest.fixture(autouse=True)
def speaks(monkeypatch):
    """An evaluation that says a line of every level."""

    def evaluate(*args, **options):
        for level, line in LINES.items():
            logging.getLogger("vitlite.engine.evaluate").log(level, line)
        raise SystemExit

    monkeypatch.setattr("vitlite.engine.evaluate.evaluate", evaluate)


@pytest.mark.parametrize(
    ("options", "count"), [((), 3), (("-v",), 4), (("--verbose",), 4), (("-q",), 1), (("--quiet",), 1)]
)
def test_levels(tiny_run, options, count):
    logger = logging.getLogger("vitlite")
    before = logger.level, list(logger.handlers)
    out, err = vitlite("eval", tiny_run, *options)
    assert (out, err.splitlines()) == ("", list(LINES.values())[-count:])
    assert (logger.level, logger.handlers) == before


def test_threads_that_wait_do_not_spin_for_long(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    vitlite("--version")
    assert os.environ["GOMP_SPINCOUNT"] == "7"  # as the user says
    monkeypatch.delenv("GOMP_SPINCOUNT")
    vitlite("--version")
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
