"""What a server is told at its start."""

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vitlite.errors import UserError
from vitlite.files import is_folder_name
from vitlite.limits import check_limits

TOKEN_VARIABLE = "VITLITE_SERVE_TOKEN"
SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True)
class Settings:
    """Where a server listens, what it takes, and how it judges. ``UserError`` for values that make no sense.

    source: a run's folder, or an exported .onnx or .xml file.
    host, port: where it listens; port 0 is one that is free.
    token: what a request must bring; None: nothing, which only a loopback address allows.
    workers: processes that score, each with the model in its memory.
    queue: requests that may wait; one more is told to come again.
    timeout: seconds for an upload, and again for its answer, waiting included.
    max_megabytes: of an upload.
    max_megapixels: of an image.
    good: the folder for images that are marked as good; None: they cannot be marked.
    category, sensitivity, threshold, pixel_threshold, min_area: as for ``vitlite.limits.limits_of``.
    """

    source: str
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    workers: int = 1
    queue: int = 16
    timeout: float = 30.0
    max_megabytes: float = 32.0
    max_megapixels: float = 50.0
    good: Path | None = None
    device: str = "auto"
    category: str | None = None
    sensitivity: str | None = None
    threshold: float | None = None
    pixel_threshold: float | None = None
    min_area: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("queue", 0), ("port", 0)):
            if getattr(self, name) < least:
                raise UserError(f"`{name}={getattr(self, name)}`: must be a whole number from {least}")
        if self.port > 65535:
            raise UserError(f"`port={self.port}`: must be at most 65535")
        for name in ("timeout", "max_megabytes", "max_megapixels"):
            if not 0 < getattr(self, name) < 1e6:
                raise UserError(f"`{name}={getattr(self, name):g}`: must be above 0 and below a million")
        check_limits(self.sensitivity, self.threshold, self.pixel_threshold)
        if self.token is not None:
            check_token(self.token, "`token`")

    @property
    def most_bytes(self) -> int:
        """Bytes of the largest upload."""
        return int(self.max_megabytes * 1e6)

    def for_worker(self) -> dict[str, Any]:
        """What a worker is told, as JSON takes it: neither the token nor a folder."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("token", "good")}

    def judging(self) -> dict[str, Any]:
        """The arguments of ``limits_of`` but the category."""
        return {name: getattr(self, name) for name in ("sensitivity", "threshold", "pixel_threshold", "min_area")}


def check_token(token: str, name: str) -> None:
    """``UserError``, which begins with the ``name`` of where it stands, for a token that is too weak or no header."""
    if not re.fullmatch(rf"[!-~]{{{SHORTEST_TOKEN},}}", token):
        raise UserError(
            f"{name}: the token must have at least {SHORTEST_TOKEN} characters, of ASCII and without spaces; "
            "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )


def token_from(file: str | None) -> str | None:
    """The token that stands in a file, or else in the environment; None if it is in neither.

    No option takes it, because other users of the machine can read the options of a process.
    """
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE) or None
        if token is not None:
            check_token(token, TOKEN_VARIABLE)
        return token
    try:
        token = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"`token_file={file}`: cannot be read ({why}); give a file with the token") from None
    check_token(token, f"`token_file={file}`")
    return token


def good_folder(source: str, given: str | None) -> Path | None:
    """The folder for good images: the one that is given, or ``marked_good`` in a run; an exported file has none."""
    if given is not None:
        if Path(given).exists() and not Path(given).is_dir():
            raise UserError(f"`good={given}`: is a file; give a folder")
        return Path(given)
    run = Path(source)
    return run / "marked_good" if run.is_dir() else None


def folder_of(good: Path, category: str | None) -> Path:
    """The folder for the good images of a category, which `calibrate --good` knows by its name."""
    return good / category if category is not None and is_folder_name(category) else good
