"""Progress with an estimate of the time left: one moving line on a terminal, a plain line now and then elsewhere."""

import sys
import time


def clock(seconds):
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """``with Progress("scoring", total) as p: p.step(n, "loss 0.1")``; writes to standard error."""

    def __init__(self, title, total, *, stream=None, start=0, quiet=False):
        self.title, self.total, self.done, self.first = title, max(total, 1), start, start
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.quiet = quiet
        self.began = time.monotonic()
        self.shown = self.began if self.live else self.began - 20  # first plain line after ten seconds
        self.width = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.live and self.width and not self.quiet:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()

    def step(self, count=1, note=""):
        self.done += count
        now = time.monotonic()
        if self.quiet or now - self.shown < (0.1 if self.live else 30):
            return
        self.shown = now
        rate = (self.done - self.first) / max(now - self.began, 1e-9)
        left = clock((self.total - self.done) / rate) if rate else "?"
        text = f"{self.title} {100 * self.done // self.total:3d} %  {note}  {left} left"
        if self.live:
            filled = 24 * self.done // self.total
            text = f"[{'#' * filled}{'.' * (24 - filled)}] {text}"[:118]
            self.stream.write("\r" + text.ljust(self.width))
            self.width = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()
