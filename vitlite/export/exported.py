"""What scores with an exported file, whichever package runs it: numpy and pillow besides. Never imports torch."""

import ctypes
import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from vitlite.errors import UserError, first_line
from vitlite.export.metadata import known_regions, loads, scale_of, view_of
from vitlite.files import MAX_MEGAPIXELS, StrPath
from vitlite.images.scale import Reading, as_pixels
from vitlite.predictor import Predictor

Contents = tuple[bytes, ...]  # of the files that one exported model consists of


class Session(ABC):
    """A network that a package has opened. Several threads may use it."""

    metadata: str | None  # the text that vitlite wrote into the file; None: it did not

    @abstractmethod
    def fits(self, sides: tuple[int, int]) -> bool:
        """Whether it takes images of this height and width, and gives maps and scores."""

    @abstractmethod
    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (B, H, W, 3), contiguous, to maps and scores."""


class ExportedDetector(Predictor):
    """Scores images as :class:`vitlite.engine.detector.Detector` does, from what ``vitlite export`` wrote.

    ``metadata`` is all that the file says about itself, ``calibration`` its thresholds and display scale,
    ``image_size`` the side of its input, or its (height, width). ``data`` is the contents of a file that is not
    written yet; ``path`` then only names it. ``threads`` of the processor score an image; None: all. Several threads of
    Python may score with one detector. ``predict`` and ``score_files`` are those of every detector.

    The detector keeps the bytes of the file. A pickle holds them, so the copy scores the same if the file has gone or
    changed; and a process that was forked after loading opens a session of its own from them.

    Raises ``UserError``: the package is missing, the file is missing, damaged or not written by vitlite, or ``device``
    is not the CPU.
    """

    kind: str  # what an error calls such a file
    package: str  # that runs it

    def __init__(
        self,
        path: StrPath,
        device: str = "auto",
        *,
        data: Contents | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
        threads: int | None = None,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise UserError(f"`device={device}`: {self.kind} is scored on the CPU; leave it out, or give a run")
        self.path = Path(path)
        self._data = self.contents(self.path) if data is None else data
        self.threads = threads
        session = self._open()
        self._opened = os.getpid(), session
        self.metadata = loads(session.metadata, path)
        self.calibration, view = self.metadata["calibration"], view_of(self.metadata)
        self.image_size = view.size
        self.tiles = view if view.tile else None
        self.reading = Reading(scale_of(self.metadata), as_pixels(max_megapixels), known_regions(self.metadata))
        if not session.fits(view.sides):
            raise UserError(f"{self.path}: its inputs and outputs are not what its metadata say; export it again")

    @classmethod
    def contents(cls, path: Path) -> Contents:
        """What the files of an exported model hold. ``UserError`` if one cannot be read."""
        return (read_model(path),)

    @abstractmethod
    def open(self) -> Session:
        """A session of the contents. ImportError without the package; another exception for damaged contents."""

    def score_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (B, H, W, 3), RGB, to maps (B, H, W) and scores (B,), float32."""
        session = self._session()
        try:
            maps, scores = session.run(np.ascontiguousarray(pixels))
        except Exception as error:  # those of the packages have no common base of their own
            again = "export it again"
            raise UserError(f"{self.path}: {self.package} cannot run it ({first_line(error)}); {again}") from error
        if maps.shape != pixels.shape[:3] or scores.shape != pixels.shape[:1]:
            raise UserError(f"{self.path}: gives maps {maps.shape} and scores {scores.shape}; export it again")
        return maps, scores

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, method={self.metadata['method']!r})"

    def digest(self) -> str:
        """SHA-256 of the contents."""
        return hashlib.sha256(b"".join(self._data)).hexdigest()

    def _open(self) -> Session:
        try:
            return self.open()
        except ImportError as error:
            raise UserError(f"{self.path}: needs {self.package} ({error}): pip install {self.package}") from None
        except Exception as error:  # as above: Fail, InvalidProtobuf, RuntimeError ...
            reason = first_line(error)
            raise UserError(f"{self.path}: damaged, or not {self.kind} ({reason}); export it again") from None

    def _session(self) -> Session:
        """This process's session: the threads and locks of one that was opened before a fork are not usable."""
        process, session = self._opened
        if process != os.getpid():
            # Never destroyed here: its destructor would wait for threads that are gone.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
            session = self._open()
            self._opened = os.getpid(), session
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._opened = os.getpid(), self._open()


def read_model(path: Path) -> bytes:
    """The contents of a file. ``UserError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}); vitlite export RUN makes such a file") from None
