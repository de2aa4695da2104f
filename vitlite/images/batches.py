"""CIFAR-10's batches: Python pickles, read by a machine of our own that cannot run anything.

A pickle is a program for a small stack machine (PEP 307, Lib/pickletools.py); Python's reader lets it call anything.
This one knows the operations that numbers, strings, lists, tuples, dicts and arrays of bytes need. The functions
that a pickled array asks for by name are stand-ins that keep the raw bytes; every other name is refused.
"""

import os
import struct
from pathlib import Path

import numpy as np

from vitlite.errors import ArchiveError
from vitlite.files import is_folder_name

MAX_BYTES = 2**30
SIDE = 32
_PIXELS = 3 * SIDE * SIDE
_FRESH = "get the file anew from www.cs.toronto.edu/~kriz/cifar.html"
_RECONSTRUCT, _FROM_BUFFER, _NDARRAY, _DTYPE, _ENCODE = "reconstruct", "from buffer", "ndarray", "dtype", "encode"
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,
}


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``(pictures, labels)`` of data_batch_1 ... or test_batch: uint8 (N, 32, 32, 3) RGB and int64 (N,).

    Raises ArchiveError with the reason: a pickle that asks for more than plain data (nothing of it is run), one of
    something else, a damaged one.
    """
    content = _dict(path)
    if "fine_labels" in content:
        raise ArchiveError("is of CIFAR-100; only CIFAR-10 is read")
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise ArchiveError("is a pickle without data and labels, not a CIFAR-10 batch")
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise ArchiveError("has labels that are not small whole numbers")
    pixels = data.pixels(len(labels))
    # A row is all red values, then green, then blue, each row by row.
    pictures = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return pictures, np.array(labels, np.int64)


def read_class_names(path: Path) -> list[str]:
    """The names of the classes from batches.meta, in the order of their labels. Raises ArchiveError."""
    names = _dict(path).get("label_names")
    names = [_text(name) for name in names] if isinstance(names, list) else []
    if not names or not all(isinstance(name, str) and is_folder_name(name) for name in names):
        raise ArchiveError("has no label_names, as CIFAR-10's batches.meta does")
    return names


def _dict(path: Path) -> dict:
    try:
        if os.stat(path).st_size > MAX_BYTES:
            raise ArchiveError(f"is larger than {MAX_BYTES} bytes, which no CIFAR-10 batch is")
        content = Path(path).read_bytes()
    except OSError as error:
        raise ArchiveError((error.strerror or str(error)).lower()) from error
    try:
        value = _Machine(content).run()
    except ArchiveError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ArchiveError(f"is damaged, or no pickle; {_FRESH}") from error
    if not isinstance(value, dict):
        raise ArchiveError("is a pickle of something else than a CIFAR-10 batch")
    return {_text(key): item for key, item in value.items()}


def _text(value):
    """Python 2 wrote its strings as bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Name:
    """A function or type that a pickle may ask for."""

    def __init__(self, module, name):
        self.kind = _NAMES.get((module, name))
        if self.kind is None:
            asked = f"{_printable(module)}.{_printable(name)}"
            raise ArchiveError(f"asks for {asked}, which CIFAR-10 never does; nothing of it was run: {_FRESH}")


def _printable(text):
    return ascii(text)[1:-1][:80]


class _Kind:
    """Stands for a numpy dtype: its short name."""

    def __init__(self, name):
        self.name = _text(name)


class _Array:
    """Stands for a numpy array: what the pickle says of it, checked when it is used."""

    shape = kind = raw = None
    by_columns = True

    def fill(self, shape, kind, by_columns, raw):
        self.shape, self.kind, self.by_columns, self.raw = shape, kind, by_columns, raw

    def pixels(self, count):
        """(count, 3072) uint8."""
        sizes = self.shape if isinstance(self.shape, tuple) and all(type(n) is int for n in self.shape) else ()
        unsigned_bytes = isinstance(self.kind, _Kind) and self.kind.name in ("u1", "|u1", "uint8")
        if not unsigned_bytes or self.by_columns or not isinstance(self.raw, bytes):
            raise ArchiveError("has data that is not an array of unsigned bytes in rows")
        if len(sizes) != 2 or sizes[1] != _PIXELS or sizes[0] < 1 or len(self.raw) != sizes[0] * _PIXELS:
            raise ArchiveError(f"has data that is not rows of {_PIXELS} bytes, one for each picture")
        if sizes[0] != count:
            raise ArchiveError(f"has {sizes[0]} pictures but {count} labels")
        return np.frombuffer(self.raw, np.uint8).reshape(count, _PIXELS)


class _Machine:
    """The stack machine. Every operation takes time and memory in proportion to its bytes in the file."""

    def __init__(self, content):
        self.content, self.at = content, 0
        self.stack, self.marks, self.memo = [], [], {}
        self.encoded = 0

    def run(self):
        """The value that the pickle stands for."""
        while True:
            code = self.take(1)
            if code == b".":
                return self.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise ArchiveError(f"uses the pickle operation {code!r}, which CIFAR-10 never does; {_FRESH}")
            operation(self)

    def take(self, count):
        """The next bytes of the file."""
        part = self.content[self.at : self.at + count]
        if count < 0 or len(part) != count:
            raise ArchiveError(f"is cut short or damaged; {_FRESH}")
        self.at += count
        return part

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self):
        end = self.content.index(b"\n", self.at)
        return self.take(end + 1 - self.at)[:-1].decode("ascii", "replace")

    def push(self, value):
        self.stack.append(value)

    def pop(self):
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError("nothing above the mark")
        return self.stack.pop()

    def pop_to_mark(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind):
        if not isinstance(self.stack[-1], kind):
            raise TypeError("not a container")
        return self.stack[-1]

    def tuple_of(self, count):
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def append(self):
        item = self.pop()
        self.top(list).append(item)

    def extend(self):
        items = self.pop_to_mark()
        self.top(list).extend(items)

    def set_item(self):
        value, key = self.pop(), self.pop()
        self.update([key, value])

    def update(self, pairs):
        # Only strings as keys: hashing a deeply nested tuple takes exponential time, or all of the C stack.
        if len(pairs) % 2 or not all(isinstance(key, (bytes, str)) for key in pairs[::2]):
            raise TypeError("not pairs of a string and a value")
        self.top(dict).update(zip(pairs[::2], pairs[1::2]))

    def remember(self, number):
        self.memo[number] = self.stack[-1]

    def find(self):
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("names are strings")
        self.push(_Name(module, name))

    def call(self):
        """REDUCE: of the known names, what an array needs."""
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise TypeError("not a call")
        if name.kind == _RECONSTRUCT:
            self.push(_Array())
        elif name.kind == _DTYPE:
            self.push(_Kind(arguments[0]))
        elif name.kind == _ENCODE:
            text, coding = arguments
            if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
                raise TypeError("not bytes as Python 2 had them")
            self.encoded += len(text)
            if self.encoded > len(self.content):
                raise ValueError("the same text again and again")
            self.push(text.encode("latin-1"))
        elif name.kind == _FROM_BUFFER:
            raw, kind, shape, order = arguments
            array = _Array()
            array.fill(shape, kind, order != "C", raw)
            self.push(array)
        else:
            raise TypeError("not a function")

    def build(self):
        """BUILD: the state of an array; that of a byte's dtype says nothing more."""
        state = self.pop()
        if isinstance(self.stack[-1], _Array):
            _, shape, kind, by_columns, raw = state
            self.stack[-1].fill(shape, kind, by_columns is not False, raw)
        elif not isinstance(self.stack[-1], _Kind):
            raise TypeError("nothing that has a state")


def _sized(form, decode=bytes):
    """An operation that pushes so many bytes as a number before them says."""
    return lambda m: m.push(decode(m.take(m.number(form))))


def _unicode(part):
    return part.decode("utf-8", "surrogatepass")


_OPERATIONS = {
    b"\x80": lambda m: m.take(1),  # protocol
    b"\x95": lambda m: m.take(8),  # frame
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"J": lambda m: m.push(m.number("<i")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    b"U": _sized("<B"),
    b"T": _sized("<i"),
    b"C": _sized("<B"),
    b"B": _sized("<I"),
    b"\x8e": _sized("<Q"),
    b"\x96": _sized("<Q"),
    b"\x8c": _sized("<B", _unicode),
    b"X": _sized("<I", _unicode),
    b"\x8d": _sized("<Q", _unicode),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"a": _Machine.append,
    b"e": _Machine.extend,
    b"s": _Machine.set_item,
    b"u": lambda m: m.update(m.pop_to_mark()),
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"c": lambda m: m.push(_Name(m.line(), m.line())),
    b"\x93": _Machine.find,
    b"R": _Machine.call,
    b"b": _Machine.build,
}
