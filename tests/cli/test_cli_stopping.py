"""SIGTERM and Ctrl-C end a command also if they come while C calls Python, as while numba compiles."""

import ctypes
import os
import signal
import threading

import pytest
from commands import outcome
from tiny_settings import TINY_OPTIONS

from vitlite import progress
from vitlite.cli._stopping import Stopped, stoppable
from vitlite.data import synthesize
from vitlite.progress import Progress


def swallowed(number=signal.SIGTERM):
    """Send this process a signal in a function that C calls, which forgets what is raised there."""

    @ctypes.CFUNCTYPE(None)
    def called():
        os.kill(os.getpid(), number)
        for _ in range(1000):  # the handler runs between two of them, if not before
            pass

    called()


@pytest.fixture(autouse=True)
def unhandled():
    """As where a user starts it; what a shell starts in the background ignores Ctrl-C."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_swallowed_is_raised_by_the_next_step(number, capfd):
    with stoppable(), Progress("work", 3) as work:
        work.step()
        swallowed(number)
        other = threading.Thread(target=work.step)  # the exception of the main thread alone ends the process
        other.start()
        other.join()
        assert work.done == 2
        assert signal.getsignal(number) == signal.SIG_DFL  # a second one ends it at once
        with pytest.raises(Stopped) as stop:
            work.step()
    assert (stop.value.number, work.done) == (number, 2)
    assert capfd.readouterr() == ("", "")
    assert progress.stopped is None
    Progress("later", 1).step()


def test_other_errors_that_c_forgets_are_shown(capfd):
    class Fails:
        def __del__(self):
            raise ValueError("forgotten")

    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", lambda found: shown.append(str(found.exc_value)))
        with stoppable():
            Fails()
    assert shown == ["forgotten"]


def test_no_category_is_begun_after_a_signal_that_an_evaluation_swallowed(tmp_path, monkeypatch):
    from vitlite.engine import ablate

    evaluate = ablate.evaluate

    def interrupted(*args, **options):
        swallowed()
        return evaluate(*args, **options)

    monkeypatch.setattr(ablate, "evaluate", interrupted)
    data = synthesize(tmp_path / "set", size=64, categories=("weave", "wood"), train=6, good=2, defects=1)
    code, _, err = outcome("train", data, "--separate", "--out", tmp_path / "runs", *TINY_OPTIONS)
    assert code == 143
    assert err.endswith("vitlite: stopped (SIGTERM)\n")
    assert "Traceback" not in err
    assert (tmp_path / "runs/weave/checkpoint.pt").exists()
    assert not (tmp_path / "runs/wood/checkpoint.pt").exists()
