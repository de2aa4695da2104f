"""How the metrics compile and how they share work between cores.

Kernels are plain numba functions that release the interpreter lock, run by ordinary Python threads. numba's own
``parallel=True`` is avoided: one of its threading layers aborts the process when two Python threads enter it, and
another when a forked child does. Threads that live only as long as the call have neither problem.
"""

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from numba import config, njit

T = TypeVar("T")
R = TypeVar("R")

MAX_THREADS = 16  # each thread holds two histograms of half a megabyte
SMALL = 1 << 17  # scores below which starting threads costs more than it saves


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter lock, cached on disk if a folder can be written, in memory otherwise.

    A cache that is full or damaged when the function is called costs the time of compiling, never the call.
    """
    options: Any = {"nogil": True, "error_model": "numpy"}
    try:
        return _guarded(njit(cache=True, **options)(function))
    except RuntimeError:  # numba's "no locator available": neither the package nor the user's cache folder is writable
        return njit(**options)(function)


def _guarded(dispatcher: Any) -> Any:
    """The dispatcher; its cache no longer raises what goes wrong with its files, so that numba compiles in memory.

    The cache's names are private to numba: if they are others, or compilation is switched off, nothing is changed.
    """
    cache: Any = getattr(dispatcher, "_cache", None)
    load, save = getattr(cache, "load_overload", None), getattr(cache, "save_overload", None)
    if load is None or save is None:
        return dispatcher

    def load_or_none(*args: Any, **options: Any) -> Any:
        try:
            return load(*args, **options)
        except Exception:  # a damaged pickle raises nearly anything: EOFError, UnpicklingError, ValueError ...
            return None  # numba's answer for what is not in the cache

    def save_if_possible(*args: Any, **options: Any) -> None:
        try:
            save(*args, **options)
        except Exception:  # a full disk, or an index that cannot be read
            # numba writes the index before the code that it names. An empty index lets the next process start afresh.
            with contextlib.suppress(Exception):
                cache.flush()

    with contextlib.suppress(AttributeError, TypeError):  # a class that takes no new attributes
        cache.load_overload, cache.save_overload = load_or_none, save_if_possible
    return dispatcher


def thread_count(size: int) -> int:
    """Threads worth using for ``size`` scores; NUMBA_NUM_THREADS and the process's CPU affinity are respected."""
    return 1 if size < SMALL else max(1, min(MAX_THREADS, config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def run_all(task: Callable[[T], R], arguments: Iterable[T], threads: int) -> list[R]:
    """``[task(a) for a in arguments]`` on ``threads`` threads; the first exception is raised."""
    arguments = list(arguments)
    if threads == 1 or len(arguments) < 2:
        return [task(a) for a in arguments]
    with ThreadPoolExecutor(min(threads, len(arguments))) as pool:
        return list(pool.map(task, arguments))
