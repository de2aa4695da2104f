"""Progress is a line that moves on a terminal and a message elsewhere, and nothing unless somebody listens."""

import io
import logging
from types import SimpleNamespace

import pytest

from vitlite import progress
from vitlite.progress import Progress, clock


class Terminal(io.StringIO):
    """A stream that says it is a terminal; ``screen`` is what stands there."""

    def isatty(self):
        return True

    def screen(self):
        lines = [[]]
        column = 0
        for letter in self.getvalue():
            if letter == "\n":
                lines.append([])
            if letter in "\r\n":
                column = 0
                continue
            lines[-1][column : column + 1] = [letter]
            column += 1
        return ["".join(line).rstrip() for line in lines]


@pytest.fixture
def seconds(monkeypatch):
    """The time, to be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal, and a handler that prints messages there."""
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))  # pytest sets sys.stderr again before the test
    handler, logger = logging.StreamHandler(stream), logging.getLogger("vitlite")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_the_time_left_of_what_follows(terminal, seconds):
    with Progress("fold 1/4", 10, after=30) as work:
        work.step(1)
        seconds[0] += 4
        work.step(4)
        assert terminal.screen()[0].endswith(" 0:35 left in all")


def test_a_line_that_moves(terminal, seconds):
    with Progress("scoring", 10) as work:
        for _ in range(5):
            seconds[0] += 1
            work.step(note="loss 1")
        assert terminal.screen() == ["[############............] scoring  50 %  loss 1  0:05 left"]
    assert terminal.screen() == [""]


def test_messages_have_lines_of_their_own(terminal, seconds):
    log = logging.getLogger("vitlite.engine.train")
    with Progress("scoring", 10) as work:
        for number in range(3):
            seconds[0] += 1
            work.step()
            log.info("image %d", number)
        assert terminal.screen() == ["image 0", "image 1", "image 2", ""]
        work.step()  # drawn again at once
        assert terminal.screen()[-1].endswith("scoring  40 %    0:03 left")
    log.info("the end")
    assert terminal.screen() == ["image 0", "image 1", "image 2", "the end", ""]


def test_a_message_now_and_then(seconds, caplog, capsys):
    with caplog.at_level("INFO", "vitlite"), Progress("features", 100) as work:
        for _ in range(50):
            seconds[0] += 1
            work.step()
    assert caplog.messages == ["features  10 %    1:30 left", "features  40 %    1:00 left"]
    assert capsys.readouterr().err == ""


def test_what_was_done_before_does_not_count_for_the_rate(seconds, caplog):
    with caplog.at_level("INFO", "vitlite"), Progress("training", 100, start=80) as work:
        work.step(1)
        seconds[0] += 20
        work.step(10)
    assert caplog.messages == ["training  91 %    0:18 left"]


def test_a_slow_start_does_not_count_for_the_rate(seconds, caplog):
    with caplog.at_level("INFO", "vitlite"), Progress("training", 100) as work:
        for pause in (60, 20, *[1] * 48):  # the first step, and one that reads files
            seconds[0] += pause
            work.step()
    assert caplog.messages == ["training   1 %    ? left", "training  12 %    4:00 left", "training  42 %    0:58 left"]


def test_a_pause_of_the_process_does_not_count(terminal, seconds):
    """As by Ctrl-Z: the speed is as before."""
    with Progress("training", 1000) as work:
        for _ in range(100):
            seconds[0] += 1
            work.step()
        for _ in range(2):
            seconds[0] += 36_000
            work.step()
        seconds[0] += 1
        work.step()
        assert terminal.screen()[0].endswith("training  10 %    14:57 left")


def test_long_steps_that_come_again_count(terminal, seconds):
    with Progress("training", 100) as work:
        for number in range(50):
            seconds[0] += 1 if number % 5 else 101
            work.step()
        assert terminal.screen()[0].endswith("training  50 %    17:30 left")


def test_nothing_without_a_listener(terminal, seconds):
    logging.getLogger("vitlite").setLevel(logging.WARNING)
    with Progress("scoring", 2) as work:
        seconds[0] += 100
        work.step()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3600, "1:00:00"), (3725.2, "1:02:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text
