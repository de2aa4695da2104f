"""``vitlite`` commands in the process of the tests: a new one would import torch anew each time."""

import contextlib
import csv
import io
import subprocess
import sys

import pytest

from vitlite.cli import main


def outcome(*args):
    """(exit code, standard output, standard error) of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    return end.value.code or 0, out.getvalue(), err.getvalue()


def vitlite(*args, code=0):
    """(standard output, standard error) of a command that ends with this exit code."""
    ended, out, err = outcome(*args)
    assert ended == code, out + err
    assert "Traceback" not in err
    return out, err


def refused(*args, says):
    """Exit code 2, nothing on standard output, and one line on standard error that holds ``says``; the line."""
    out, err = vitlite(*args, code=2)
    (line,) = err.strip().splitlines()
    assert (out, line.startswith("vitlite: "), says in line) == ("", True, True), out + err
    return line


def python(code):
    """(exit code, standard output, standard error) of Python code in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def rows_of(path):
    """The rows of a CSV file, as dicts."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
