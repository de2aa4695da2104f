"""What the server and its workers say to each other: a JSON object and bytes, with both lengths before them.

Nothing is pickled: a worker decodes files that strangers send, so the server takes from it only what cannot run.
"""

import asyncio
import json
import struct
from typing import IO, Any

_LENGTHS = struct.Struct(">II")
Message = tuple[dict[str, Any], bytes]


def packed(head: dict[str, Any], body: bytes = b"") -> list[bytes]:
    """A message in pieces, to be written one after another. ValueError for NaN."""
    text = json.dumps(head, allow_nan=False).encode()
    return [_LENGTHS.pack(len(text), len(body)) + text, body]


def send(file: IO[bytes], head: dict[str, Any], body: bytes = b"") -> None:
    """Write a message and flush."""
    for piece in packed(head, body):
        file.write(piece)
    file.flush()


def receive(file: IO[bytes]) -> Message | None:
    """The next message; None at the end, also in the middle of one."""
    start = file.read(_LENGTHS.size)
    if len(start) < _LENGTHS.size:
        return None
    lengths = _LENGTHS.unpack(start)
    text, body = (file.read(length) for length in lengths)
    return (json.loads(text), body) if (len(text), len(body)) == lengths else None


async def receive_soon(stream: asyncio.StreamReader) -> Message:
    """The next message. ``asyncio.IncompleteReadError`` at the end."""
    text, body = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
    head = json.loads(await stream.readexactly(text))
    return head, await stream.readexactly(body) if body else b""
