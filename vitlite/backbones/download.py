"""The cache folder of weights: where files are looked for and where a download ends, checksum verified."""

import contextlib
import hashlib
import http.client
import logging
import os
import re
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from vitlite.errors import UserError

log = logging.getLogger(__name__)

# Seconds without an answer before a download is given up; it is tried once.
TIMEOUT = 10


def cache_folder() -> Path:
    """$VITLITE_CACHE, or ~/.cache/vitlite."""
    return Path(os.environ.get("VITLITE_CACHE") or Path.home() / ".cache" / "vitlite")


def hash_prefix(file_name: str) -> str | None:
    """The beginning of the sha256 that publishers append to a file name: resnet18-f37072fd.pth -> f37072fd."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", file_name)
    return found and found.group(1)


def verify(path: Path, mend: str) -> None:
    """Compare a file with the checksum in its name. Raises UserError, which ends with `mend`, if they differ."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    _compare(path.name, digest.hexdigest(), str(path), mend)


def fetch(address: str, folder: Path) -> Path:
    """Download `address` into `folder` under its own name and return the path.

    The file appears whole and verified, or not at all. Raises UserError with the reason and what to do instead.
    """
    name = address.rsplit("/", 1)[1]
    target = folder / name
    mend = f"get {name} from there and put it into {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
    except OSError as error:
        raise UserError(
            f"cannot write to the cache folder {folder} ({error.strerror or error}); set VITLITE_CACHE to another one"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _receive(address, file)
        _compare(name, digest, address, mend)
        os.chmod(partial, 0o644)
        os.replace(partial, target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {address} ({_reason(error)}); {mend}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    return target


def _receive(address: str, file) -> str:
    """Copy the answer of the server into `file`; the sha256 of what came."""
    digest, received = hashlib.sha256(), 0
    request = urllib.request.Request(address, headers={"User-Agent": "vitlite"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        length = int(answer.headers.get("Content-Length") or 0)
        log.info("downloading %s (%.0f MB)", address, length / 1e6)
        while block := answer.read(1 << 20):
            digest.update(block)
            received += len(block)
            file.write(block)
    if length and received != length:
        raise http.client.IncompleteRead(b"", length - received)
    return digest.hexdigest()


def _compare(name: str, digest: str, where: str, mend: str) -> None:
    expected = hash_prefix(name)
    if expected is not None and not digest.startswith(expected):
        raise UserError(f"{where} is damaged: its sha256 begins with {digest[:8]}, not {expected}; {mend}")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection ended {error.expected} bytes early"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return f"no answer within {TIMEOUT} s"
    return str(getattr(error, "reason", None) or error or type(error).__name__)
