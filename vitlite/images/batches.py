"""CIFAR-10's batches: Python pickles, read so that nothing in them can run.

A pickle is a program for a small stack machine (PEP 307, Lib/pickletools.py), and it may call anything by name. Here
two things stand before that. ``pickletools`` lists the operations, and a file is refused if it has one that plain data
never needs, or one that would take memory or time out of proportion to the file. Then ``pickle.Unpickler`` reads it,
and gets stand-ins for the few names that a pickled array asks for, which keep the raw bytes; every other name is
refused.
"""

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from vitlite.files import StrPath, is_folder_name
from vitlite.images.unusable import Unusable

MAX_BYTES = 2**30
SIDE = 32
_PIXELS = 3 * SIDE * SIDE
_FRESH = "download it again from www.cs.toronto.edu/~kriz/cifar.html"
_MOST_OPERATIONS = 2**21  # a batch has 60 thousand; one byte of the file can become a list of 56 bytes
_MOST_TUPLES = 1000  # an array needs six; hashing nested ones takes one level of the C stack each
# What numbers, texts, lists, dicts, arrays of bytes and calls of known names need.
# fmt: off
_PLAIN = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "SETITEM", "SETITEMS",
    "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
))
# fmt: on


def read_batch(path: StrPath) -> tuple[np.ndarray, np.ndarray]:
    """``(images, labels)`` of data_batch_1 ... or test_batch: uint8 (N, 32, 32, 3) RGB and int64 (N,).

    Raises Unusable with the reason: a pickle that asks for more than plain data (nothing of it is run), one of
    something else, a damaged one.
    """
    content = _read_dict(path)
    if "fine_labels" in content:
        raise Unusable("is of CIFAR-100; only CIFAR-10 is read")
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise Unusable("is a pickle without data and labels, not a CIFAR-10 batch")
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise Unusable("has labels that are not small whole numbers")
    pixels = data.pixels()
    if len(pixels) != len(labels):
        raise Unusable(f"has {len(pixels)} images but {len(labels)} labels")
    # A row is all red values, then green, then blue, each row by row.
    images = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return images, np.array(labels, np.int64)


def read_class_names(path: StrPath) -> list[str]:
    """The names of the classes from batches.meta, in the order of their labels. Raises Unusable."""
    names = _read_dict(path).get("label_names")
    names = [_text(name) for name in names] if isinstance(names, list) else []
    if not names or not all(isinstance(name, str) and is_folder_name(name) for name in names):
        raise Unusable("has no label_names, as CIFAR-10's batches.meta does")
    return names


def _read_dict(path: StrPath) -> dict[str, Any]:
    try:
        if os.stat(path).st_size > MAX_BYTES:
            raise Unusable(f"is larger than {MAX_BYTES} bytes, which no CIFAR-10 batch is")
        content = Path(path).read_bytes()
    except OSError as error:
        raise Unusable((error.strerror or str(error)).lower()) from error
    try:
        _require_plain(content)
        value = _Reader(content).load()
    except Unusable:
        raise
    except Exception as error:  # damaged files make pickle raise nearly anything
        raise Unusable(f"is damaged, cut short, or no pickle; {_FRESH}") from error
    if not isinstance(value, dict):
        raise Unusable("is a pickle of something else than a CIFAR-10 batch")
    return {_text(key): item for key, item in value.items()}


def _text(value: Any) -> Any:
    """Python 2 wrote its strings as bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _require_plain(content: bytes) -> None:
    """Refuse a pickle by its list of operations alone, before anything of it is read.

    Tuples are the only values that can be a key of a dict and hold others. So that hashing them takes a bounded time,
    each is used in one place only: no tuple is taken from the memo.
    """
    memo: dict[int, bool] = {}  # place -> whether it holds a tuple
    tuples, on_top = 0, False  # whether the value on top of the stack is a tuple
    for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
        name = operation.name
        if number >= _MOST_OPERATIONS:
            raise ValueError("more operations than any batch has")
        if name not in _PLAIN:
            raise Unusable(f"uses the pickle operation {name}, which CIFAR-10 never does; {_FRESH}")
        if name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if argument is None else argument
            if place >= _MOST_OPERATIONS:  # pickle.Unpickler makes a table up to the largest place
                raise ValueError("a place in the memo that no batch needs")
            memo[place] = on_top
        elif name in ("BINGET", "LONG_BINGET"):
            on_top = False
            if memo.get(argument or 0, True):
                raise ValueError("a tuple in a second place, or nothing there")
        else:
            on_top = name.startswith("TUPLE")
            tuples += on_top
            if tuples > _MOST_TUPLES:
                raise ValueError("more tuples than any batch has")


class _Reader(pickle.Unpickler):
    """Reads plain data; names stand for what is in ``known``."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.left_to_encode = len(content)
        arrays = {"multiarray._reconstruct": _Call(lambda *_: _Array()), "numeric._frombuffer": _Call(_from_buffer)}
        self.known: dict[str, Any] = {
            "numpy.ndarray": "ndarray",
            "numpy.dtype": _Call(lambda kind, *_: _Kind(_text(kind))),
            "_codecs.encode": _Call(self._encode),
            **{f"numpy.{core}.{name}": call for core in ("core", "_core") for name, call in arrays.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked not in self.known:
            asked = f"{_printable(module)}.{_printable(name)}"
            raise Unusable(f"asks for {asked}, which CIFAR-10 never does; nothing of it was run: {_FRESH}")
        return self.known[asked]

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("a reference to something outside the file")

    def _encode(self, text: str, coding: str) -> bytes:
        if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
            raise TypeError("not bytes as Python 2 had them")
        self.left_to_encode -= len(text)
        if self.left_to_encode < 0:
            raise ValueError("the same text again and again")
        return text.encode("latin-1")


def _printable(text: str) -> str:
    return ascii(text)[1:-1][:80]


class _Call:
    """Stands for a function that a pickle may call. A pickle cannot change it: it takes no state."""

    __slots__ = ("function",)

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a function has no state")


class _Kind:
    """Stands for a numpy dtype: its short name."""

    __slots__ = ("name",)

    def __init__(self, name: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """The state of a byte's dtype says nothing more."""


class _Array:
    """Stands for a numpy array: what the pickle says of it, checked when it is used."""

    __slots__ = ("by_columns", "kind", "raw", "shape")

    def __init__(self, shape: Any = None, kind: Any = None, by_columns: Any = True, raw: Any = None) -> None:
        self.shape, self.kind, self.by_columns, self.raw = shape, kind, by_columns, raw

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.kind, self.by_columns, self.raw = state

    def pixels(self) -> np.ndarray:
        """The rows, uint8 (N, 3072). Raises Unusable."""
        sizes = self.shape if isinstance(self.shape, tuple) and all(type(n) is int for n in self.shape) else ()
        unsigned_bytes = isinstance(self.kind, _Kind) and self.kind.name in ("u1", "|u1", "uint8")
        if not unsigned_bytes or self.by_columns is not False or not isinstance(self.raw, (bytes, bytearray)):
            raise Unusable("has data that is not an array of unsigned bytes in rows")
        if len(sizes) != 2 or sizes[1] != _PIXELS or sizes[0] < 1 or len(self.raw) != sizes[0] * _PIXELS:
            raise Unusable(f"has data that is not rows of {_PIXELS} bytes, one for each image")
        return np.frombuffer(self.raw, np.uint8).reshape(-1, _PIXELS)


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> _Array:
    return _Array(shape, kind, order != "C", raw)
