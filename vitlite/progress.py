"""Progress with an estimate of the time left: one moving line on a terminal, a message now and then elsewhere."""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self

log = logging.getLogger("vitlite")

BAR = 24  # characters
WIDTH = 118  # of the moving line, at most
SECONDS_LIVE = 0.1  # between two states of the moving line
SECONDS_PLAIN = 30  # between two messages; the first one comes after FIRST_PLAIN
FIRST_PLAIN = 10
PAUSE = 60  # seconds: a longer time between two steps, ...
LONGER = 20  # ... if it is so many times the longest before it, is one in which the process was stopped
FINEST = 0.01  # of the time so far, between two marks by which the speed is measured


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


stopped: BaseException | None = None  # what the handler of a signal raised that asked this process to end


class Progress:
    """How far a piece of work is: ``with Progress("scoring", total) as p: p.step(n, "loss 0.1")``.

    It shows itself only if the logger ``vitlite`` is enabled for INFO and has a handler. If standard error is a
    terminal, it is a line there that moves and that makes room for messages. Otherwise it is a message of the logger
    after ten seconds and then every half minute. The time left is that of this work and of as much more as ``after``
    says, in the same units, at the speed of the later half of the time since the first step: first steps are slow. A
    pause of the whole process, as by Ctrl-Z or in a machine that sleeps, does not count as time.

    A step in the main thread raises :data:`stopped` again, if there is one: what calls Python from C, as numba does
    while it compiles, may have swallowed it.
    """

    def __init__(self, title: str, total: int, *, start: int = 0, after: int = 0) -> None:
        self.title, self.total, self.done = title, max(total, 1), start
        self.after = after
        self.shows = log.isEnabledFor(logging.INFO) and log.hasHandlers()
        self.live = self.shows and sys.stderr.isatty()
        self.marks: deque[tuple[float, int]] = deque()  # (time, done) from the middle of that time on
        self.first = 0.0  # the time of the first step
        self.last = 0.0  # that of the last one
        self.longest = 0.0  # between two steps, without pauses
        self.longer = LONGER
        self.shown = time.monotonic() - (0 if self.live else SECONDS_PLAIN - FIRST_PLAIN)
        self.width = 0  # of what stands on the moving line
        self.room = _Room(self._clear)

    def __enter__(self) -> Self:
        if self.live:
            log.handlers.insert(0, self.room)  # before those that print
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            log.removeHandler(self.room)
            self._clear()

    def step(self, count: int = 1, note: str = "") -> None:
        """Count what is done; ``note`` stands beside the share."""
        if stopped is not None and threading.current_thread() is threading.main_thread():
            raise stopped
        self.done += count
        now = time.monotonic()
        rate = self._rate(now)
        if not self.shows or now - self.shown < (SECONDS_LIVE if self.live else SECONDS_PLAIN):
            return
        self.shown = now
        left = clock((self.total - self.done + self.after) / rate) if rate else "?"
        left += " left in all" if self.after else " left"
        text = f"{self.title} {100 * self.done // self.total:3d} %  {note}  {left}"
        if not self.live:
            log.info("%s", text)
            return
        filled = BAR * self.done // self.total
        text = f"[{'#' * filled}{'.' * (BAR - filled)}] {text}"[:WIDTH]
        sys.stderr.write("\r" + text.ljust(self.width))
        sys.stderr.flush()
        self.width = len(text)

    def _rate(self, now: float) -> float:
        """What is done in a second; 0 if it is not known yet."""
        if not self.marks:
            self.first = self.last = now
        gap, self.last = now - self.last, now
        if self.longest and gap > max(PAUSE, self.longer * self.longest):
            self.first += gap - self.longest
            self.marks = deque((when + gap - self.longest, done) for when, done in self.marks)
            self.longer *= 4  # if such gaps come again and again, they are no pauses
        elif gap > self.longest:
            self.longest, self.longer = gap, LONGER
        if not self.marks or now - self.marks[-1][0] > FINEST * (now - self.first):
            self.marks.append((now, self.done))
        while len(self.marks) > 1 and self.marks[1][0] <= (self.first + now) / 2:
            self.marks.popleft()
        since, before = self.marks[0]
        return (self.done - before) / max(now - since, 1e-9)

    def _clear(self) -> None:
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0
            self.shown = 0.0  # the next step draws it again


class _Room(logging.Handler):
    """Clears the moving line before the handlers that follow print a message."""

    def __init__(self, clear: Callable[[], None]) -> None:
        super().__init__()
        self.clear = clear

    def emit(self, record: logging.LogRecord) -> None:
        self.clear()
