"""``vitlite`` commands in the process of the tests: a new one would import torch anew each time."""

import contextlib
import io

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
    return out, err
