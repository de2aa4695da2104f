"""The processes that score: each has one request at a time, the others wait, and one that dies is started anew."""

import asyncio
import contextlib
import itertools
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vitlite.errors import UserError
from vitlite.serve import wire
from vitlite.serve.settings import Settings

log = logging.getLogger(__name__)

TRIES = 2  # of a request whose worker died
LONGEST_PAUSE = 30.0  # seconds between the starts of a worker that dies while it starts
_COMMAND = (sys.executable, "-m", "vitlite.serve.worker")


class Busy(Exception):
    """A request that has no answer now. The same request may be sent again after ``seconds``."""

    def __init__(self, reason: str, seconds: int) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Died(Exception):
    """A worker ended."""


@dataclass(order=True)
class _Job:
    """A request that waits or is scored; the earliest is next, also at its second try."""

    number: int
    head: dict[str, Any] = field(compare=False)
    body: bytes = field(compare=False)
    answer: "asyncio.Future[wire.Message]" = field(compare=False)
    tries: int = field(default=0, compare=False)


class _Worker:
    """A process of ``vitlite.serve.worker`` that is ready."""

    def __init__(self, process: asyncio.subprocess.Process, folder: "tempfile.TemporaryDirectory[str]") -> None:
        self.process, self.folder = process, folder
        self.facts: dict[str, Any] = {}

    @classmethod
    async def start(cls, settings: Settings) -> "_Worker":
        """Start one and wait until it has loaded the model. ``UserError`` if that cannot be used; ``_Died``."""
        share = max(1, (os.cpu_count() or 1) // settings.workers)
        threads = {"OMP_NUM_THREADS": str(share)} if settings.workers > 1 else {}
        pipe = asyncio.subprocess.PIPE
        # A worker is killed in the end, so its uploads are not its own to remove.
        folder = tempfile.TemporaryDirectory(prefix="vitlite-serve-", ignore_cleanup_errors=True)
        process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=pipe, stdout=pipe, env=threads | os.environ)
        worker = cls(process, folder)
        try:
            head, _ = await worker.ask(settings.for_worker() | {"folder": worker.folder.name})
        except BaseException:
            await worker.stop()
            raise
        if "refused" in head:
            await worker.stop()
            raise UserError(head["refused"])
        worker.facts = head["ready"]
        return worker

    async def ask(self, head: dict[str, Any], body: bytes = b"") -> wire.Message:
        """Its answer to a message. ``_Died``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            for piece in wire.packed(head, body):
                self.process.stdin.write(piece)
            await self.process.stdin.drain()
            return await wire.receive_soon(self.process.stdout)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise _Died from error

    async def stop(self) -> int:
        """End it, at once, and wait for that; its exit code. What it kept of an upload goes."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        code = await self.process.wait()
        self.folder.cleanup()
        return code


class Pool:
    """Workers and the requests that wait for them. All of it lives in one event loop.

    ``facts`` is what the first worker said when it was ready. ``failed`` is done, with the ``UserError``, if a worker
    that died cannot come back: the run has changed or has gone.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.facts: dict[str, Any] = {}
        self.restarts = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed.add_done_callback(lambda done: done.exception())  # it is said in any case
        self.inside = 0  # requests from the beginning of their upload to their answer
        self._ready: dict[int, _Worker] = {}
        self._waiting: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._seconds = 0.1  # that a request takes, on average
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> int:
        """How many workers can score."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """How many requests wait for a worker."""
        return self._waiting.qsize()

    def processes(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._ready.values()]

    async def start(self) -> None:
        """Start the workers. ``UserError`` if the model cannot be used, or the first worker dies."""
        try:
            first = await _Worker.start(self.settings)
        except _Died:
            raise UserError(
                f"{self.settings.source}: the process that loads it ended; is there enough memory?"
            ) from None
        self.facts = first.facts
        self._ready[0] = first
        self._keepers = [
            asyncio.create_task(self._keep(place, first if place == 0 else None))
            for place in range(self.settings.workers)
        ]

    async def stop(self) -> None:
        """End the workers."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for a request, from its upload to its answer. ``Busy`` if there is none."""
        if self.inside >= self.settings.workers + self.settings.queue:
            raise self.busy("too many requests wait")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def ask(self, head: dict[str, Any], body: bytes) -> wire.Message:
        """A worker's answer to a request. ``Busy`` if there is none in time, or the worker died at every try."""
        job = _Job(next(self._numbers), head, body, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(job)
        try:
            ends = (job.answer, self.failed)
            await asyncio.wait(ends, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if job.answer.done():
                return job.answer.result()
        finally:
            job.answer.cancel()
        raise self.busy(
            "the server ends" if self.failed.done() else f"no answer within {self.settings.timeout:g} seconds"
        )

    def busy(self, reason: str) -> Busy:
        """An error that says when to come again: once those who are inside now have their answers."""
        seconds = math.ceil(self.inside * self._seconds / self.settings.workers)
        return Busy(f"{reason}; send the request again", min(max(seconds, 1), 60))

    async def _keep(self, place: int, worker: _Worker | None) -> None:
        """Keep one worker alive, and give it one request after another."""
        try:
            while True:
                worker = worker or await self._start_again()
                self._ready[place] = worker
                code = await self._use(worker)
                del self._ready[place]
                worker = None
                self.restarts += 1
                log.warning("a worker ended (exit code %s); another one starts", code)
        except UserError as error:
            if not self.failed.done():
                self.failed.set_exception(error)
        finally:
            self._ready.pop(place, None)
            if worker is not None:
                await worker.stop()

    async def _start_again(self) -> _Worker:
        """A new worker, after growing pauses if it dies while it starts. ``UserError`` if it cannot be as the first."""
        pause = 1.0
        while True:
            try:
                worker = await _Worker.start(self.settings)
            except _Died:
                log.warning("a worker ended while it started; another one starts in %g seconds", pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if worker.facts != self.facts:
                await worker.stop()
                raise UserError(f"{self.settings.source}: has changed since the server started; start it again")
            return worker

    async def _use(self, worker: _Worker) -> int:
        """Give requests to a worker until it is gone; its exit code."""
        gone = asyncio.create_task(worker.process.wait())
        following: asyncio.Task[_Job] | None = None
        try:
            while True:
                following = asyncio.create_task(self._waiting.get())
                await asyncio.wait((gone, following), return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return await worker.stop()
                await self._serve(worker, following.result())
        except _Died:
            return await worker.stop()
        finally:
            gone.cancel()
            if following is not None:
                following.cancel()

    async def _serve(self, worker: _Worker, job: _Job) -> None:
        """Have a request answered, unless nobody waits for it any more. ``_Died`` if the worker is gone after it."""
        if job.answer.done():
            return
        job.tries += 1
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self.settings.timeout):
                answer = await worker.ask(job.head, job.body)
        except TimeoutError:  # nobody waits any more
            raise _Died from None
        except _Died:
            if job.tries < TRIES:
                self._waiting.put_nowait(job)
            elif not job.answer.done():
                job.answer.set_exception(self.busy("the process that scores it ended, twice"))
            raise
        self._seconds += 0.1 * (time.perf_counter() - start - self._seconds)
        if not job.answer.done():
            job.answer.set_result(answer)
