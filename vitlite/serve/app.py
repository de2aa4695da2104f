"""The paths of the server, and what each of them answers."""

import asyncio
import contextlib
import logging
import math
import shlex
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vitlite.engine.watch import Drift
from vitlite.errors import UserError
from vitlite.images.reading import Note, Notices
from vitlite.serve.guard import Guard
from vitlite.serve.marked import Marked
from vitlite.serve.meters import Meters
from vitlite.serve.pool import Busy, Pool
from vitlite.serve.scoring import limits_from
from vitlite.serve.settings import Settings

log = logging.getLogger(__name__)

PAGE = {"": "text/html", "page.js": "text/javascript", "page.css": "text/css"}


class Refused(Exception):
    """A request that gets an error: its status, and a line that says what is wrong."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """What the server answers. ``pool`` has started."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self.settings, self.pool, self.meters = settings, pool, Meters()
        self.limits = limits_from(pool.facts)
        self.categories = [name for name in self.limits if name is not None]
        self.drift = {name: Drift(limits) for name, limits in self.limits.items()}
        self.notices = Notices()  # once for all uploads
        self.marked = Marked(settings.good, self.categories) if settings.good is not None else None

    def application(self) -> ASGIApp:
        """The ASGI application."""
        paths: dict[str, tuple[str, Any]] = {
            "/score": ("POST", self.score),
            "/overlay": ("POST", self.overlay),
            "/good": ("POST", self.mark),
            "/good/{name}": ("DELETE", self.unmark),
            "/info": ("GET", self.info),
            "/health": ("GET", self.health),
            "/metrics": ("GET", self.metrics),
            **{f"/{name}": ("GET", self.page) for name in PAGE},
        }
        routes = [Route(path, respond, methods=[method]) for path, (method, respond) in paths.items()]

        def no_route(request: Request, error: HTTPException) -> JSONResponse:
            """What is asked for is not served; says what is."""
            detail = error.detail
            if error.status_code == 404:
                detail = (
                    f"no such address; there are {', '.join(f'{method} {path}' for path, (method, _) in paths.items())}"
                )
            elif error.status_code == 405:
                detail = f"takes {(error.headers or {}).get('Allow')} here, not {request.method}"
            return failure(error.status_code, detail, error.headers)

        handlers: dict[Any, Any] = {
            Refused: lambda _, error: failure(error.status, str(error)),
            HTTPException: no_route,
            Busy: lambda _, error: failure(503, str(error), {"retry-after": str(error.seconds)}),
            UserError: lambda _, error: failure(507, str(error)),
        }

        def known(path: str) -> str:
            """A path as the metrics name it: what a stranger makes up is "other"."""
            return path if path in paths else "/good/{name}" if path.startswith("/good/") else "other"

        return Guard(Starlette(routes=routes, exception_handlers=handlers), self.settings.token, self.meters, known)

    async def score(self, request: Request) -> Response:
        """The verdict on an image as JSON; with ``map=1`` what a page draws as well."""
        (verdict, _) = await self.verdict(request, "view" if flag(request, "map") else "score")
        return JSONResponse(verdict)

    async def overlay(self, request: Request) -> Response:
        """The image with its map over it as PNG; headers have the score and the verdict."""
        verdict, drawn = await self.verdict(request, "overlay")
        said = {f"vitlite-{key}": str(verdict[key]) for key in ("score", "threshold", "verdict", "percentile")}
        return Response(drawn, media_type="image/png", headers=said)

    async def mark(self, request: Request) -> Response:
        """Keep an image as a good one."""
        marked, category = self.keeps(), self.category(request) or self.settings.category
        async with self.upload(request, {"category"}) as body:
            checked, _ = await self.ask({"want": "check"}, body)
            name = await asyncio.to_thread(marked.add, body, checked["ending"], category)
        return JSONResponse({"good": name, "marked": marked.count()})

    async def unmark(self, request: Request) -> Response:
        """Take back what ``mark`` did."""
        marked = self.keeps()
        if not marked.remove(request.path_params["name"]):
            raise Refused(404, "no image of that name is marked as good")
        return JSONResponse({"marked": marked.count()})

    async def info(self, request: Request) -> Response:
        """What a page has to know."""
        settings, own = self.settings, self.limits[None]
        source = shlex.quote(settings.source if settings.source[:1] != "-" else f"./{settings.source}")
        run = Path(settings.source).is_dir()
        keep = None
        if self.marked is not None:
            keep = {"folder": str(self.marked.folder), "marked": self.marked.count(), "command": None}
            keep["command"] = (
                f"vitlite calibrate {source} --good {shlex.quote(str(self.marked.folder))}" if run else None
            )
        return JSONResponse(
            {
                "name": Path(settings.source).name,
                "threshold": own.image,
                "scores": [float(own.good_scores[0]), float(own.good_scores[-1])],
                "categories": {name: self.limits[name].image for name in self.categories},
                "category": settings.category,
                "needs_category": self.pool.facts["needs_category"],
                "command": f"vitlite {'calibrate' if run else 'serve'} {source} --threshold",
                "good": keep,
                "drift": self.drifts(),
                "max_bytes": settings.most_bytes,
            }
        )

    async def health(self, request: Request) -> Response:
        """Whether a worker can score."""
        ready = self.pool.ready
        return JSONResponse(
            {"status": "ok" if ready else "no worker is ready", "workers": ready}, 200 if ready else 503
        )

    async def metrics(self, request: Request) -> Response:
        """Counts and times, for Prometheus."""
        shares = [drift.share for drift in self.drift.values()]
        gauges = {
            "waiting": ("Requests that wait for a worker.", self.pool.waiting),
            "inside": ("Requests from the beginning of their upload to their answer.", self.pool.inside),
            "workers": ("Workers that can score.", self.pool.ready),
            "worker_restarts_total": ("Workers that ended and were started anew.", self.pool.restarts),
            "drift": ("1 if the scores of good images drift.", bool(self.drifts())),
            "drift_share": ("Share of recent good images above the calibration's 90th percentile.", max(shares)),
        }
        text = self.meters.text(gauges, self.pool.processes())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        """The page, its script or its style."""
        name = request.url.path[1:]
        text = files("vitlite.serve").joinpath(name or "page.html").read_text(encoding="utf-8")
        return Response(text, media_type=PAGE[name])

    async def verdict(self, request: Request, want: str) -> tuple[dict[str, Any], bytes]:
        """What a worker says of the image in a request, and the bytes that it drew."""
        category, threshold = self.category(request), number(request, "threshold")
        async with self.upload(request, {"category", "threshold"} | ({"map"} if want != "overlay" else set())) as body:
            start = time.perf_counter()
            head = {"want": want, "category": category, "threshold": threshold}
            found, drawn = await self.ask(head, body)
        self.notices.say(Note(kind, f"an upload {line}") for kind, line in found.pop("strange").items())
        self.meters.answered(found["verdict"], time.perf_counter() - start)
        if (warning := self.drift[category].add(found["score"])) is not None:
            log.warning(f"{category}: {warning}" if category else warning)
        return {**found, "category": category, "drift": self.drifts()}, drawn

    async def ask(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """A worker's answer. ``Refused`` if it is an error."""
        found, drawn = await self.pool.ask(head, body)
        if "error" in found:
            raise Refused(found["status"], found["error"])
        return found, drawn

    @contextlib.asynccontextmanager
    async def upload(self, request: Request, known: set[str]) -> AsyncIterator[bytes]:
        """The bytes of the image in a request, which has a place among those that wait, until the end of the block.

        ``known`` are the parameters that it may have. ``Refused`` and ``Busy`` come before the whole image is here;
        what the client still sends is taken for a while and forgotten, so it can read the answer.
        """
        strange = sorted(set(request.query_params) - known)
        if strange:
            raise Refused(400, f"{strange[0]!r}: no such parameter; there are {', '.join(sorted(known))}")
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise Refused(415, "send the image itself as the body: curl --data-binary @image.png")
        with self.pool.place():
            yield await self._body(request)

    async def _body(self, request: Request) -> bytes:
        most = self.settings.most_bytes
        too_large = Refused(413, f"the upload is larger than {most / 1e6:g} MB")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.timeout):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refused(408, f"the upload took more than {self.settings.timeout:g} seconds") from None
        except ClientDisconnect:
            raise Refused(400, "the upload is cut short") from None
        return bytes(body)

    def category(self, request: Request) -> str | None:
        """The category that a request names, or none."""
        name = request.query_params.get("category")
        if name is not None and name not in self.categories:
            raise Refused(400, f"category {name!r}: unknown; there are {', '.join(self.categories) or 'none'}")
        return name

    def keeps(self) -> Marked:
        """The folder for good images. ``Refused`` if there is none."""
        if self.marked is None:
            raise Refused(404, "the server keeps no images: start it with --good DIR")
        return self.marked

    def drifts(self) -> str | None:
        """A line if the scores of good images drift now."""
        found = [f"{name or 'all'}: {drift.share:.0%}" for name, drift in self.drift.items() if drift.drifts]
        if not found:
            return None
        return (
            f"scores of good images drift ({', '.join(found)} of the recent ones are above what 10% were at the "
            "calibration); check light, position and camera, or calibrate with recent good images"
        )


def failure(status: int, message: str, headers: Any = None) -> JSONResponse:
    """An error as JSON."""
    return JSONResponse({"error": message}, status, headers)


def flag(request: Request, name: str) -> bool:
    """Whether a parameter is 1; absent or 0 is no. ``Refused`` for anything else."""
    value = request.query_params.get(name, "0")
    if value not in ("0", "1"):
        raise Refused(400, f"{name}={value}: must be 0 or 1")
    return value == "1"


def number(request: Request, name: str) -> float | None:
    """A parameter that is a finite number; None if it is absent. ``Refused`` for anything else."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refused(400, f"{name}={text}: must be a finite number")
    return value
