"""Threads, processes, caches and memory: what the metrics do to the machine they run on."""

import errno
import gc
import importlib
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vitlite import metrics
from vitlite.metrics import jit


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_calls_from_several_threads_at_once():
    """Large enough that every call starts threads of its own."""
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 250, 250), np.uint8)
    masks[1:, 100:130, 50:90] = 1
    maps = rng.random((4, 250, 250)).astype(np.float32)
    assert maps.size > jit.SMALL
    expected = metrics.evaluate_maps(masks, maps)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: metrics.evaluate_maps(masks, maps), range(12)):
            assert found == expected


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_does_not_change_the_result(threads, monkeypatch):
    rng = np.random.default_rng(1)
    masks, maps = (rng.random((7, 200, 200)) < 0.1).astype(np.uint8), rng.random((7, 200, 200))
    masks[0] = 0
    expected = metrics.evaluate_maps(list(masks), list(maps))
    monkeypatch.setattr("vitlite.metrics.inputs.thread_count", lambda size: threads)
    assert metrics.evaluate_maps(list(masks), list(maps)) == pytest.approx(expected, abs=1e-13)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_use_them_too():
    found = run("""
        import os, numpy as np
        from vitlite.metrics import evaluate_maps
        masks = np.zeros((4, 250, 250), np.uint8)
        masks[1:, 100:130, 50:90] = 1
        maps = np.random.default_rng(0).random((4, 250, 250))
        expected = evaluate_maps(masks, maps)
        child = os.fork()
        if not child:
            os._exit(0 if evaluate_maps(masks, maps) == expected else 3)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert found.returncode == 0, found.stderr


CALL = """
    import numpy as np
    from vitlite.metrics.compiled import keys_of
    bits = np.zeros(2, np.uint32)
    keys_of(bits, bits)
    print(bits[0], sum(keys_of.stats.cache_hits.values()), sum(keys_of.stats.cache_misses.values()))
"""
COMPILED, FROM_DISK = [str(1 << 31), "0", "1"], [str(1 << 31), "1", "0"]


def call_with_cache(folder):
    found = run(CALL, NUMBA_CACHE_DIR=str(folder))
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def test_compiled_code_is_kept_on_disk(tmp_path):
    outputs = [call_with_cache(tmp_path) for _ in range(2)]
    assert list(tmp_path.rglob("*.nbc"))
    assert outputs == [COMPILED, FROM_DISK]


def test_empty_files_in_the_cache(tmp_path):
    """What a full disk or a killed process leaves behind."""
    call_with_cache(tmp_path)
    for path in tmp_path.rglob("*.nb[ic]"):
        path.write_bytes(b"")
    assert call_with_cache(tmp_path) == COMPILED


@pytest.fixture
def twice(tmp_path, monkeypatch):
    """A maker of fresh compiled functions that share one cache, in ``tmp_path``."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cached_twice.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("cached_twice")  # numba imports it by this name when it loads the code
    yield lambda: jit.jit(module.twice)
    del sys.modules["cached_twice"]


def comes_from_disk(function):
    gc.collect()  # what earlier copies of the function left in memory
    assert function(4) == 8
    return bool(function.stats.cache_hits)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        pytest.param(lambda b: b"", marks=pytest.mark.slow),
        pytest.param(lambda b: b"no pickle", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_damaged_cache_is_compiled_and_written_anew(tmp_path, twice, kind, damage):
    assert [comes_from_disk(twice()) for _ in range(2)] == [False, True]
    (path,) = tmp_path.rglob(f"*.{kind}")
    path.write_bytes(damage(path.read_bytes()))
    found = [comes_from_disk(twice()) for _ in range(3)]
    assert not found[0]
    assert found[-1]


@pytest.mark.parametrize("part", ["_save_index", "_save_data"])
def test_a_full_disk_under_the_cache(tmp_path, twice, monkeypatch, part):
    """The index may be written and the code not: old code under that name is then not taken for it."""
    twice()(4.0)
    (code,) = tmp_path.rglob("*.nbc")
    (tmp_path / "cached_twice.py").write_text("def twice(x):\n    return 2 * x  # changed\n")

    def no_space(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(f"numba.core.caching.IndexDataCacheFile.{part}", no_space)
        assert not comes_from_disk(twice())
    assert code.exists()
    assert [comes_from_disk(twice()) for _ in range(2)] == [False, True]


def test_a_numba_with_other_private_names(twice, monkeypatch):
    import numba.core.dispatcher as dispatcher

    class Cache:  # takes no new attributes
        __slots__ = ()
        load_overload = save_overload = lambda *args: None

    for cache in (Cache, object, lambda: None):
        monkeypatch.setattr(dispatcher.Dispatcher, "enable_caching", lambda self, c=cache: setattr(self, "_cache", c()))
        function = twice()
        assert function.py_func(4) == 8
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    assert twice()(4) == 8


def test_where_nothing_can_be_kept_on_disk_it_compiles_in_memory():
    import numba

    names = {}
    exec(compile("def twice(x):\n    return 2 * x", "<no file, so no folder to keep it in>", "exec"), names)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(names["twice"])
    assert jit.jit(names["twice"])(4) == 8


@pytest.mark.parametrize(
    ("error", "remark"),
    [(AssertionError(), "AssertionError: AssertionError"), (RuntimeError("no room\nhere"), "RuntimeError: no room")],
)
def test_a_rival_that_breaks_is_a_remark(monkeypatch, error, remark):
    from vitlite.bench import metrics

    def broken(masks, maps):
        raise error

    monkeypatch.setitem(metrics.RIVALS, "broken", (broken, (), 0.0))
    assert metrics.time_rival("broken", *metrics.make_data(1, 40), {}) == (None, f"fails: {remark}")


def test_where_the_system_says_nothing_of_memory_the_rest_is_measured(monkeypatch, capsys, tmp_path):
    from vitlite.bench import _machine, metrics

    monkeypatch.setattr(_machine, "Path", lambda name: tmp_path / name.strip("/").replace("/", "-"))
    monkeypatch.setattr(metrics, "compare", lambda images, side: [])
    monkeypatch.setattr(metrics, "first_calls", dict)
    monkeypatch.setattr(metrics, "machine", lambda packages: {})
    assert _machine.peak_mib() is None
    assert metrics.main([]) == 0
    assert "not measured" in capsys.readouterr().out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_extra_memory_is_a_few_bytes_per_pixel():
    from vitlite.bench.metrics import peaks

    assert peaks(12, 512, ("ours",))["ours"] < 12
