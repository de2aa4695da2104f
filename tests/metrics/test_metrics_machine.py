"""Threads, processes, caches and memory: what the metrics do to the machine they run on."""

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


def test_no_torch_and_nothing_heavy_on_import():
    heavy = "{m for m in ('torch', 'numba', 'numpy', 'scipy') if m in sys.modules}"
    found = run(f"""
        import sys, vitlite.metrics
        assert not {heavy}, {heavy}
        import numpy as np
        vitlite.metrics.evaluate_maps(np.eye(3)[None].repeat(2, 0) * [[[0]], [[1]]], np.random.rand(2, 3, 3))
        vitlite.metrics.StreamingEvaluator
        import vitlite.metrics.maps_io, vitlite.metrics.results
        assert 'torch' not in sys.modules
    """)
    assert found.returncode == 0, found.stderr


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


def test_compiled_code_is_kept_on_disk(tmp_path):
    call = """
        import numpy as np
        from vitlite.metrics.compiled import keys_of
        bits = np.zeros(2, np.uint32)
        keys_of(bits, bits)
        print(bits[0], sum(keys_of.stats.cache_hits.values()), sum(keys_of.stats.cache_misses.values()))
    """
    outputs = [run(call, NUMBA_CACHE_DIR=str(tmp_path)).stdout.split() for _ in range(2)]
    assert list(tmp_path.rglob("*.nbc"))
    assert outputs == [[str(1 << 31), "0", "1"], [str(1 << 31), "1", "0"]]


def test_where_nothing_can_be_kept_on_disk_it_compiles_in_memory():
    import numba

    names = {}
    exec(compile("def twice(x):\n    return 2 * x", "<no file, so no folder to keep it in>", "exec"), names)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(names["twice"])
    assert jit.jit(names["twice"])(4) == 8


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_extra_memory_is_a_few_bytes_per_pixel():
    from vitlite.bench.metrics import peaks

    assert peaks(12, 512, ("ours",))["ours"] < 12
