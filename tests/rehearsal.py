"""Tests on a GPU that there is not: in a process of their own, with Triton's interpreter.

Whether a kernel is interpreted is settled when it is defined, hence the process. In it ``REHEARSAL`` is true.
"""

import os
import subprocess
import sys

TESTS = os.path.dirname(__file__)
REHEARSAL = os.environ.get("VITLITE_REHEARSAL") == "1"


def rehearse(plugin, *options):
    """What pytest prints of tests that all pass; ``plugin`` is a module of this folder or of tests/kernels."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "VITLITE_REHEARSAL": "1"}
    path = [TESTS, os.path.join(TESTS, "kernels"), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-p", "no:cacheprovider", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
