"""Ctrl-C and SIGTERM as an exception, so that files are closed, temporary ones removed, and one line is printed."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from vitlite import progress


class Stopped(BaseException):
    """A signal asked the process to end. No ``Exception``: nothing that handles those may hold it up.

    ``hint`` is what the user can do next; it follows the signal's name.
    """

    hint = ""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells give it for a process that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"stopped ({signal.Signals(self.number).name}){self.hint}"


@contextlib.contextmanager
def training_into(out: str, again: str) -> Iterator[None]:
    """Within it, a training that is stopped says how it goes on: by the options ``again`` and its folder."""
    try:
        yield
    except Stopped as stop:
        from vitlite.engine.settings import CONFIG_FILE

        begun = (Path(out) / CONFIG_FILE).exists()
        go_on = f"; go on with {again} --out {shlex.quote(out)}"
        stop.hint = go_on if begun else " before training began; start it again"
        raise


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within it the first SIGINT or SIGTERM raises :class:`Stopped`; a second one ends the process at once.

    Signals that the parent had ignored (``nohup``, background jobs) stay ignored. Outside the main thread, where Python
    handles no signals, nothing changes. A library that calls Python from C, as numba does while it compiles, prints and
    forgets what is raised there: then nothing is printed, and the next step of any progress raises it again.
    """
    show = sys.unraisablehook

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        progress.stopped = Stopped(number)
        raise progress.stopped

    def show_others(found: "sys.UnraisableHookArgs") -> None:
        if not isinstance(found.exc_value, Stopped):
            show(found)

    before = {}
    with contextlib.suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop)
        sys.unraisablehook = show_others
    try:
        yield
    finally:
        progress.stopped, sys.unraisablehook = None, show
        for number, handler in before.items():
            signal.signal(number, handler)
