"""Opens the port, starts the workers, and answers until a signal ends it."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from typing import Any

import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from vitlite.errors import UserError
from vitlite.serve.app import Service
from vitlite.serve.pool import Pool
from vitlite.serve.settings import TOKEN_VARIABLE, Settings

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 256  # whose requests are answered; those of as many more are told to come again
HEAD_SECONDS = 10.0  # for the head of a request
REST_SECONDS = 60.0  # for a client to take the rest of an answer


class Connection(H11Protocol):
    """A connection that a client cannot hold for ever: by a slow head, or by an answer that it does not take."""

    _slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Those above the limit get an answer that says so, or none."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self.app = too_many  # type: ignore[assignment]
        if len(self.connections) > 2 * MOST_CONNECTIONS:
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """As usual; beside it the time runs until a head is complete."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        super().connection_lost(exc)
        self._stop_watching()

    def timeout_keep_alive_handler(self) -> None:
        """The client asks nothing more: close, and do not wait for ever until it has taken the last answer."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(REST_SECONDS, self.transport.abort)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._slow is None:
            self._slow = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None


too_many = JSONResponse(
    {"error": "too many connections; send the request again"}, 503, {"retry-after": "1", "connection": "close"}
)


def serve(settings: Settings, ready: Any = None) -> None:
    """Serve until SIGINT or SIGTERM; requests that are inside are answered first.

    ``ready`` is called with the server's address once it answers. ``UserError``: the address is not to be had, it is no
    loopback address and there is no token, or the model cannot be used, now or at the restart of a worker.
    """
    listener = listen(settings)
    with listener:
        asyncio.run(_serve(settings, listener, ready))


def listen(settings: Settings) -> socket.socket:
    """A socket that listens where the settings say."""
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"`host={host}`: is no address of this machine ({error}); try 127.0.0.1") from None
    if settings.token is None and not ipaddress.ip_address(address[0]).is_loopback:
        raise UserError(
            f"`host={host}`: others can reach it, so requests need a token; put one into {TOKEN_VARIABLE}, "
            "or give `token_file`"
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        return listener
    except OSError as error:
        listener.close()
        raise UserError(f"`port={port}`: cannot be opened on {host} ({error.strerror}); choose another") from None


async def _serve(settings: Settings, listener: socket.socket, ready: Any) -> None:
    pool = Pool(settings)
    try:
        await pool.start()
        service = Service(settings, pool)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # no line for each request that is no HTTP
        config = uvicorn.Config(
            service.application(),
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.timeout) + 1,
        )
        server = uvicorn.Server(config)
        ending = asyncio.create_task(_end_with(pool, server))
        host, port = listener.getsockname()[:2]
        if ready is not None:
            ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        await server.serve([listener])
        ending.cancel()
        if pool.failed.done():
            pool.failed.result()
    finally:
        await pool.stop()


async def _end_with(pool: Pool, server: uvicorn.Server) -> None:
    """End the server if its pool cannot go on."""
    with contextlib.suppress(UserError):
        await asyncio.shield(pool.failed)
    server.should_exit = True
