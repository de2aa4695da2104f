"""Ctrl-C and SIGTERM as an exception, so that files are closed, temporary ones removed, and one line is printed."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


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
def stoppable() -> Iterator[None]:
    """Within it the first SIGINT or SIGTERM raises :class:`Stopped`; a second one ends the process at once.

    Signals that the parent had ignored (``nohup``, background jobs) stay ignored. Outside the main thread, where Python
    handles no signals, nothing changes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)

    before = {}
    with contextlib.suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
