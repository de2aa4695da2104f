"""What a case of bad input is: a function that damages something and returns the command to run on it."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MARKER = "code_was_run"  # a file that only code hidden in the input would make


@dataclass(frozen=True)
class Case:
    """``make(place)`` returns the command's arguments.

    says: what the one line on stderr matches, from its start; None where the command has to succeed.
    code: the documented exit code.
    writes: patterns of files that may be new or changed afterwards.
    """

    name: str
    make: object
    says: str | None
    code: int
    writes: tuple


class Table(list):
    """Cases in order; ``add``, ``@table.refused("pattern")`` or ``@table.works("pattern of what it writes")``."""

    def add(self, name, make, says, *, writes=(), code=None):
        self.append(Case(name, make, says, code or (0 if says is None else 2), writes))

    def refused(self, says, *, writes=()):
        return lambda make: self.add(make.__name__, make, says, writes=writes)

    def works(self, *writes, code=0):
        return lambda make: self.add(make.__name__, make, None, writes=writes, code=code)


@dataclass
class Place:
    """Where a case plays: an empty folder, copies of a trained run and of its data in it, and shorthands."""

    root: Path
    make_run: object
    make_data: object

    @property
    def run(self):
        """A copy of the trained run, to be damaged."""
        return self.make_run(self.root / "run")

    @property
    def data(self):
        """A copy of the data set: category weave, 10 good images, 4 good and 2 defective ones of each kind to test."""
        return self.make_data(self.root / "set")

    @property
    def image(self):
        """A good image, beside nothing else."""
        return self.save("image.png", np.full((40, 30, 3), 90, np.uint8))

    @property
    def marker(self):
        """A file that only code hidden in the input would make."""
        return self.root / MARKER

    def onnx(self):
        """The contents of a run as an ONNX file."""
        for package in ("onnx", "onnxruntime"):
            pytest.importorskip(package)
        return (Path(__file__).parents[1] / "old_run/runs/anovit/model.onnx").read_bytes()

    def write(self, name, content):
        """A file with these bytes or this text."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def save(self, name, array):
        """An image file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return path

    def predict(self, *images, run=None, options=()):
        """``vitlite predict`` into ``out``."""
        return ["predict", run or self.run, *images, "--out", self.root / "out", *options]

    def train(self, *options):
        """``vitlite train`` into ``new``."""
        return ["train", "--method", "sivt", "--out", self.root / "new", "--device", "cpu", *options]


def encoded(array, kind, **options):
    """An image as the bytes of its file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, format=kind, **options)
    return file.getvalue()


def noise(height=40, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def png_bomb(side):
    """A small PNG file that says it is ``side`` x ``side``, with nearly nothing for pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
