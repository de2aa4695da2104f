"""Work on many files at once."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


def each(function, items) -> Iterator:
    """``map`` on threads, in order. Decoding gains by it: Pillow releases the interpreter lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)
