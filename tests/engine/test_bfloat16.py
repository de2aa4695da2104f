"""precision=auto: bfloat16 if the processor has it and is faster with it. The measurement draws nothing."""

import itertools
from dataclasses import replace

import pytest
import torch

from vitlite.engine import distributed
from vitlite.engine.distributed import TRIES, bfloat16_is_faster, has_fast_bfloat16
from vitlite.engine.settings import load_settings
from vitlite.engine.train import train

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch):
    """A function that measures on a clock, given the seconds of a product in float32 and in bfloat16."""

    def measure(float32, bfloat16):
        steps = itertools.cycle([0.0, float32, 0.0, bfloat16])
        now = itertools.accumulate(steps)
        monkeypatch.setattr(distributed.time, "perf_counter", lambda: next(now))
        bfloat16_is_faster.cache_clear()
        return bfloat16_is_faster()

    yield measure
    bfloat16_is_faster.cache_clear()


def test_faster_by_more_than_a_fifth(measured):
    assert measured(1.0, 0.5)
    assert not measured(1.0, 0.9)
    assert not measured(1.0, 1.8)


def test_the_processor_is_asked_first(monkeypatch):
    has = dict.fromkeys(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), False)
    monkeypatch.setattr(distributed, "_cpu_says", has.__getitem__)
    monkeypatch.setattr(distributed, "bfloat16_is_faster", lambda: True)
    assert not has_fast_bfloat16(CPU)
    has["_is_avx512_bf16_supported"] = True
    assert has_fast_bfloat16(CPU)
    monkeypatch.setattr(distributed, "bfloat16_is_faster", lambda: False)
    assert not has_fast_bfloat16(CPU)
    has["_is_amx_tile_supported"] = True
    assert has_fast_bfloat16(CPU)


def test_nothing_is_drawn_and_it_is_measured_once(monkeypatch):
    bfloat16_is_faster.cache_clear()
    before = torch.get_rng_state()
    calls = []
    product = distributed.F.linear
    monkeypatch.setattr(distributed.F, "linear", lambda *args: calls.append(args) or product(*args))
    assert bfloat16_is_faster() is bfloat16_is_faster()
    assert len(calls) == 2 * TRIES
    assert torch.equal(torch.get_rng_state(), before)
    bfloat16_is_faster.cache_clear()


@pytest.mark.parametrize("fast", [False, True])
def test_a_run_keeps_what_was_decided(tiny_run, tmp_path, monkeypatch, fast):
    """So that it is resumed in the same precision, also if another measurement would give the other one."""
    monkeypatch.setattr(distributed, "has_fast_bfloat16", lambda device: fast)
    settings = load_settings(tiny_run)
    train(replace(settings, config=replace(settings.config, precision="auto")), tmp_path / "run", device="cpu")
    assert load_settings(tmp_path / "run").config.precision == ("bfloat16" if fast else "float32")
