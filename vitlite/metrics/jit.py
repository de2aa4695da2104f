"""How the metrics compile and how they share work between cores.

Kernels are plain numba functions that release the interpreter lock, run by ordinary Python threads. numba's own
``parallel=True`` is avoided: one of its threading layers aborts the process when two Python threads enter it, and
another when a forked child does. Threads that live only as long as the call have neither problem.
"""

from concurrent.futures import ThreadPoolExecutor

from numba import config, njit

MAX_THREADS = 16  # each thread holds two histograms of half a megabyte
SMALL = 1 << 17  # scores below which starting threads costs more than it saves


def jit(function):
    """Compile without the interpreter lock, cached on disk where a folder can be written, in memory otherwise."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba's "no locator available": neither the package nor the user's cache folder is writable
        return njit(**options)(function)


def thread_count(size):
    """Threads worth using for ``size`` scores; NUMBA_NUM_THREADS and the process's CPU affinity are respected."""
    return 1 if size < SMALL else max(1, min(MAX_THREADS, config.NUMBA_NUM_THREADS))


def run_all(task, arguments, threads):
    """``[task(a) for a in arguments]`` on ``threads`` threads; the first exception is raised."""
    arguments = list(arguments)
    if threads == 1 or len(arguments) < 2:
        return [task(a) for a in arguments]
    with ThreadPoolExecutor(min(threads, len(arguments))) as pool:
        return list(pool.map(task, arguments))
