"""Training in processes that can be killed, forked from a server that has torch loaded already.

The functions here run in those processes; they must not leave anything behind in the test's own.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

from tiny_settings import TINY_OPTIONS

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["vitlite.engine.train", "vitlite.engine.evaluate", "vitlite.methods.sivt"])


def begin(data, run, *options):
    """The command that trains a tiny run; ``options`` come last."""
    return ["train", "--method", "sivt", "--data", data, "--out", run, *TINY_OPTIONS, "--device", "cpu", *options]


def go_on(run, *options):
    """The command that continues a run."""
    return ["train", "--resume", "--out", run, "--device", "cpu", *options]


def start(args, out, setup=None, *setup_args):
    """Run ``vitlite ARGS`` in a process of its own, stdout and stderr into ``out``; a checkpoint after every epoch.

    ``setup(*setup_args)``, a function of this module, runs in the process first.
    """
    process = CONTEXT.Process(target=_command, args=([str(a) for a in args], str(out), setup, setup_args))
    process.start()
    return process


def finish(args, out, setup=None, *setup_args):
    """As ``start``, to the end: ``(exit code, what it printed)``."""
    process = start(args, out, setup, *setup_args)
    process.join()
    return process.exitcode, Path(out).read_text()


def _command(args, out, setup, setup_args):
    with open(out, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - of the process
    import torch

    from vitlite.cli import main
    from vitlite.engine import loop

    torch.set_num_threads(1)
    # As where a user starts it; what a shell starts in the background, these tests for one, ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    loop.SECONDS_BETWEEN_CHECKPOINTS = 0
    if setup is not None:
        setup(*setup_args)
    main(args)


def die_at_write(number, moment):
    """kill -9 at the ``number``-th file that is written: within its bytes, before it takes its name, or after."""
    from vitlite import files

    replace, fsync, count = os.replace, os.fsync, 0

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def counted_fsync(handle):
        nonlocal count
        count += 1
        if count == number and moment == "within":
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            die()
        fsync(handle)

    def counted_replace(source, target):
        if count == number and moment == "before":
            die()
        replace(source, target)
        if count == number and moment == "after":
            die()

    files.os.fsync, files.os.replace = counted_fsync, counted_replace


def limit_file_size(size):
    """No file may grow beyond ``size`` bytes: what a full disk looks like to a program, for every user."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def signal_in_epoch(number, epoch):
    """Send the process itself a signal in the middle of an epoch."""
    _in_epoch(epoch, lambda: os.kill(os.getpid(), number))


def remove_in_epoch(folder, epoch):
    """Rename a folder away in the middle of an epoch."""

    def remove():
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, f"{folder}.away")

    _in_epoch(epoch, remove)


def _in_epoch(epoch, happens):
    from vitlite.engine.loop import Loop

    step = Loop.train_step

    def train_step(self, *args):
        if self.epoch == epoch:
            happens()
        return step(self, *args)

    Loop.train_step = train_step


def signal_in_synthesis(number):
    """Send the process itself a signal while it makes the synthetic data set."""
    from vitlite.data import synthetic

    synthetic.render_good = lambda *args, **options: os.kill(os.getpid(), number)
