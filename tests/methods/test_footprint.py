"""What cannot fit into memory is refused before the system ends the process; what is in use stays."""

import math

import pytest
import torch

from vitlite.engine.settings import RunSettings, build_method, preset_config
from vitlite.errors import UserError
from vitlite.methods import REGISTRY, footprint, method_class
from vitlite.methods.config import change
from vitlite.methods.footprint import kept_by_stage, machine_memory, refuse_too_deep, refuse_too_large, step_memory

SMALL = {"dim": "16", "depth": "1", "heads": "1", "channels": "8,8,8,8,8", "image_size": "320", "precision": "float32"}


def has(monkeypatch, total, free=None):
    monkeypatch.setattr(footprint, "machine_memory", lambda: (total, total if free is None else free))


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        (
            "anovit",
            {"depth": "100000"},
            r"depth=100000: the network takes at least \d+ GB, and this machine has 8.0 GB",
        ),
        ("vtadl", {"dim": "80000"}, "dim=80000: the network takes"),
        ("sivt", {"encoder_depth": "100000"}, "encoder_depth=100000: "),
        ("sivt", {"decoder_depth": "100000"}, "decoder_depth=100000: "),
        ("isstad", {"decoder_dim": "64000"}, "decoder_dim=64000: "),
        ("dinomaly", {"depth": "1000000"}, "depth=1000000: "),
    ],
)
def test_a_network_that_no_memory_holds_is_refused_before_it_is_made(monkeypatch, method, changes, says):
    has(monkeypatch, 8e9)
    config = change(preset_config(method, "quick"), changes)
    with pytest.raises(UserError, match=says):
        build_method(RunSettings(method, "", "", "quick", 0, config))


@pytest.mark.parametrize("method", REGISTRY)
def test_presets_are_not_refused_and_take_no_time_to_measure(monkeypatch, method):
    has(monkeypatch, 8e9)
    monkeypatch.setattr(footprint, "step_memory", lambda *_: pytest.fail("measures a step"))
    for preset in method_class(method).presets:
        config = preset_config(method, preset)
        refuse_too_deep(config, trained=True)
        refuse_too_large(method_class(method), config, 1000)


def test_a_step_is_what_is_kept_in_it():
    """It was measured by smaller images, and by one of them."""
    kind, config = method_class("anovit"), change(preset_config("anovit", "quick"), SMALL)
    before = torch.get_rng_state()
    found = step_memory(kind, config, 5)
    assert torch.equal(torch.get_rng_state(), before)
    ((_, kept),) = kept_by_stage(kind, config)
    assert found == pytest.approx(5 * kept, rel=0.05)
    assert step_memory(kind, change(config, {"accumulate": "2"}), 1000) == pytest.approx(4 * kept, rel=0.05)
    assert step_memory(kind, change(config, {"precision": "bfloat16"}), 5) == found / 2


def test_a_step_that_does_not_fit(monkeypatch, caplog):
    monkeypatch.setattr(footprint, "step_memory", lambda *_: 9e9)
    kind, config = method_class("anovit"), change(preset_config("anovit", "quick"), {"image_size": "1024"})
    has(monkeypatch, 8e9)
    says = (
        r"image_size=1024: a training step takes at least 9.0 GB, and this machine has 8.0 GB; give less, or a smaller"
    )
    with pytest.raises(UserError, match=f"^{says} batch_size$"):
        refuse_too_large(kind, config, 100)
    many = change(config, {"image_size": "256", "batch_size": "500"})
    with pytest.raises(UserError, match=r"^batch_size=500: .*; give less, or a smaller image_size$"):
        refuse_too_large(kind, many, 100)
    with pytest.raises(UserError, match=r"^tile=1024: "):
        refuse_too_large(kind, change(config, {"tile": "1024"}), 100)
    refuse_too_large(kind, many, 10)  # there are no more images
    assert not caplog.messages
    has(monkeypatch, 16e9, 10e9)  # the peak is above what is kept
    refuse_too_large(kind, config, 100)
    assert "and this machine has 16 GB, 10 GB of them free; if it is stopped without a word" in caplog.text
    caplog.clear()
    has(monkeypatch, 16e9, 11e9)
    refuse_too_large(kind, config, 100)
    assert not caplog.messages


def test_the_memory_of_the_machine_and_of_its_container(tmp_path):
    assert machine_memory(tmp_path) == (math.inf, math.inf)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 5 kB\nSwapTotal: 2 kB\nSwapFree: 1 kB\n")
    assert machine_memory(tmp_path) == (10 * 1024, 6 * 1024)
    (tmp_path / "proc/self/cgroup").write_text("0::/pod/app\n")
    for place, limit in (("pod/app", "max"), ("pod", "1024"), ("", "4096")):
        (tmp_path / "sys/fs/cgroup" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / place / "memory.max").write_text(limit)
    assert machine_memory(tmp_path) == (3 * 1024, 3 * 1024)  # swap is beside a group's limit
    (tmp_path / "sys/fs/cgroup/memory").mkdir()
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("512")
    assert machine_memory(tmp_path)[0] == 2 * 1024 + 512


def test_this_machine_says_what_it_has():
    total, free = machine_memory()
    assert 0 < free <= total
