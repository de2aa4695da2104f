"""The pool of workers, with workers that die, hang or change: each is a few lines of Python."""

import asyncio
import sys
import tempfile

import pytest

from vitlite.errors import UserError
from vitlite.serve import pool as pool_module
from vitlite.serve.pool import Busy, Pool
from vitlite.serve.settings import Settings

START = """
import os, sys, time
from vitlite.serve import wire
requests, answers = sys.stdin.buffer, sys.stdout.buffer
settings = wire.receive(requests)[0]
def lives():
    with open(settings["source"], "a+") as file:
        file.write("x")
        return file.tell()
"""
READY = 'wire.send(answers, {"ready": {"life": 1}})\n'
ECHO = "while (message := wire.receive(requests)): wire.send(answers, *message)\n"


@pytest.fixture
def pool_of(monkeypatch, tmp_path):
    """pool_of(code, **settings): a pool whose workers run this code, in an event loop."""

    def make(code, **settings):
        monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", START + code))
        return Pool(Settings(str(tmp_path / "lives"), **settings))

    return make


def test_what_a_worker_kept_of_an_upload_goes_with_it(pool_of, tmp_path, monkeypatch):
    """Whether it dies or is ended."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    upload = 'open(settings["folder"] + "/upload", "w").close()\n'

    async def run():
        pool = pool_of(upload + READY + "requests.read(1) if lives() > 1 else os.abort()")
        await pool.start()
        while pool.restarts < 1 or not pool.ready:
            await asyncio.sleep(0.01)
        kept = [path.name for path in tmp_path.glob("*/*")]
        await pool.stop()
        return kept

    assert asyncio.run(run()) == ["upload"]
    assert [path.name for path in tmp_path.iterdir()] == ["lives"]


def test_answers(pool_of):
    """More requests than workers; every one gets its own answer, and their bytes come back whole."""

    async def main():
        pool = pool_of(READY + ECHO, workers=2)
        await pool.start()
        bodies = [bytes([number]) * 200_000 for number in range(20)]
        answers = await asyncio.gather(*(pool.ask({"number": i}, body) for i, body in enumerate(bodies)))
        await pool.stop()
        return answers == [({"number": i}, body) for i, body in enumerate(bodies)]

    assert asyncio.run(main())


def test_a_worker_that_dies_of_an_image(pool_of):
    """The request is tried twice, then told to come again; the next one is answered."""

    async def main():
        code = (
            READY + "head, body = wire.receive(requests)\nif body == b'bomb': os._exit(9)\nwire.send(answers, head)\n"
        )
        pool = pool_of(code + ECHO)
        await pool.start()
        with pytest.raises(Busy, match="ended, twice; send the request again") as busy:
            await pool.ask({}, b"bomb")
        assert busy.value.seconds >= 1
        assert await pool.ask({"next": 1}, b"") == ({"next": 1}, b"")
        await pool.stop()
        return pool.restarts

    assert asyncio.run(main()) == 2


def test_a_worker_that_hangs(pool_of):
    """Who waits too long is told so, the worker is ended, and the next request is answered."""

    async def main():
        hangs = "if lives() == 1:\n    wire.receive(requests)\n    time.sleep(1e6)\n"
        pool = pool_of(READY + hangs + ECHO, timeout=0.5)
        await pool.start()
        with pytest.raises(Busy, match="no answer within 0"):
            await pool.ask({}, b"")
        while True:
            try:
                answer = await pool.ask({"next": 1}, b"")
                break
            except Busy:  # the next worker still starts
                pass
        await pool.stop()
        return answer, pool.restarts

    assert asyncio.run(main()) == (({"next": 1}, b""), 1)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ('wire.send(answers, {"ready": {"life": 2}})', "has changed since the server started; start it again"),
        ('wire.send(answers, {"refused": "the run is gone"})', "the run is gone"),
    ],
)
def test_a_model_that_changes(pool_of, second, says):
    """A worker that cannot be as the first one ends the pool: no two images are judged by different models."""

    async def main():
        code = f"if lives() > 1:\n    {second}\n    time.sleep(1e6)\n"
        pool = pool_of(code + READY + "wire.receive(requests)\n")
        await pool.start()
        asking = asyncio.create_task(pool.ask({}, b""))
        try:
            await pool.failed
        finally:
            asking.cancel()
            await pool.stop()

    with pytest.raises(UserError, match=says):
        asyncio.run(main())


def test_a_worker_that_never_starts(pool_of):
    async def main():
        await pool_of("sys.exit(1)").start()

    with pytest.raises(UserError, match="the process that loads it ended"):
        asyncio.run(main())
