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
    # What torch compiled before is not taken: it may be from before a change of what the tests are about.
    environment = {**os.environ, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    environment |= {"TRITON_INTERPRET": "1", "VITLITE_REHEARSAL": "1"}
    path = [TESTS, os.path.join(TESTS, "kernels"), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    # Without the logs of torch, the end of the output has the errors.
    quiet = ("-q", "--show-capture=no", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *quiet, "-p", plugin, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
