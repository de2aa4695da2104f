"""Who may ask, and what every answer says to browsers."""

import hmac
import ipaddress
import logging
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitlite.serve.meters import Meters

log = logging.getLogger(__name__)

OPEN = ("/", "/page.js", "/page.css", "/health")  # hold no data: the page asks for the token itself
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """An application that lets in who may ask, counts, and adds the headers of ``SECURITY`` to every answer.

    With a token, a request has to bring it. Without one the server listens on a loopback address, and the danger are
    pages of other servers in a browser on this machine: so the request has to name this machine as its host, which a
    page behind another name cannot make the browser say, and must not come from another origin.
    """

    def __init__(self, app: ASGIApp, token: str | None, meters: Meters, known: Callable[[str], str]) -> None:
        self.app, self.token, self.meters, self.known = app, token, meters, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY)
                path, status = self.known(scope["path"]), message["status"]
                self.meters.requests[path, status] += 1
                log.debug("%s %s %d", scope["method"], path, status)
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refused(scope["path"], headers)
        await (refused or self.app)(scope, receive, noted)

    def _refused(self, path: str, headers: Headers) -> JSONResponse | None:
        if self.token is None:
            return self._strange_page(path, headers)
        if path in OPEN or self._has_token(headers.get("authorization", "")):
            return None
        say = {"www-authenticate": 'Bearer realm="vitlite"'}
        return JSONResponse({"error": "give the server's token: Authorization: Bearer TOKEN"}, 401, say)

    def _strange_page(self, path: str, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_local(re.sub(r":\d+$", "", host)):
            return JSONResponse({"error": "the request names another host; ask for localhost"}, 421)
        elsewhere = path != "/" and headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if elsewhere or (origin is not None and urlsplit(origin).netloc != host):
            return JSONResponse({"error": "the request comes from a page of another server"}, 403)
        return None

    def _has_token(self, given: str) -> bool:
        kind, _, token = given.partition(" ")
        wanted = (self.token or "").encode()
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), wanted)


def is_local(host: str) -> bool:
    """Whether a host is this machine by its name or by its address, which no server of names can change."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
