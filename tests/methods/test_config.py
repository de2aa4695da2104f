"""Fields of any kind: from Python, from the command line, and through config.toml."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from vitlite.engine.settings import RunSettings, load_settings, preset_config, save_settings
from vitlite.errors import UserError
from vitlite.methods import REGISTRY, method_class
from vitlite.methods.base import Method
from vitlite.methods.config import TrainingConfig, change, kinds


@dataclass(frozen=True)
class Config(TrainingConfig):
    scale: float | None = None
    size: int | None = 3
    widths: tuple[float, ...] = (1.0,)
    names: tuple[str, ...] = ("a", "b")


class Made(Method):
    presets: ClassVar = {"paper": Config()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("scale=2", {"scale": 2.0}),
        ("size=none", {"size": None}),
        ("widths=1, 2.5", {"widths": (1.0, 2.5)}),
        ("widths=", {"widths": ()}),
        ("names=x,y z", {"names": ("x", "y z")}),
        ("compile=Yes", {"compile": True}),
        ("compare_maps=auto", {"compare_maps": "auto"}),
        ("compare_maps=yes", {"compare_maps": True}),
    ],
)
def test_from_text_and_through_a_file(text, value, tmp_path, monkeypatch):
    key, given = text.split("=")
    config = change(Config(places="mean"), {key: given})
    assert config == replace(Config(places="mean"), **value)
    monkeypatch.setitem(REGISTRY, "made", (__name__, "Made"))
    settings = RunSettings("made", "data", "all", "paper", 0, config)
    save_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings


def test_numbers_take_the_type_of_the_field():
    config = Config(widths=[1, 2], lr=1, scale=3)
    assert [type(n) for n in (*config.widths, config.lr, config.scale)] == 4 * [float]


@pytest.mark.parametrize(
    "change", [{"widths": (float("nan"),)}, {"widths": 2.0}, {"scale": "x"}, {"names": 3}, {"compare_maps": 1}]
)
def test_what_a_field_cannot_hold(change):
    with pytest.raises(UserError, match=f"^{next(iter(change))}=.*: must be "):
        Config(**change)


def test_a_number_of_epochs_takes_the_place_of_steps():
    assert change(Config(steps=5), {"epochs": 3}).steps == 0
    assert change(Config(steps=5), {"epochs": 3, "steps": 7}).steps == 7
    assert change(Config(steps=5), {"warmup_epochs": 3}).steps == 5


def test_a_limit_of_epochs_or_a_stage_of_none_leaves_the_steps():
    limited = change(Config(steps=5), {"max_epochs": "3"})
    assert (limited.steps, limited.max_epochs) == (5, 3)
    with pytest.raises(UserError, match=r"^max_epochs=3: does nothing without steps$"):
        change(Config(), {"max_epochs": 3})
    quick = preset_config("vtadl", "quick")
    together = change(quick, {"density_epochs": "0", "density_lr": 0})
    assert (together.steps, together.max_epochs) == (quick.steps, quick.max_epochs)
    assert change(quick, {"density_epochs": 7}).steps == 0


def test_what_is_given_takes_the_place_of_what_would_hide_it():
    assert change(Config(folds=4, folds_below=9), {"holdout": 0.3}).folds == 0
    assert change(Config(folds=4), {"holdout": 0.3, "folds": 3}).folds == 3
    assert change(Config(warmup_steps=5), {"warmup_epochs": 3}).warmup_steps == 0


def test_a_setting_without_effect_is_refused_only_if_it_is_given():
    assert change(Config(folds=4, folds_below=9, overlap=0.5), {"train_images": 3}).folds == 4
    assert change(Config(), {"overlap": 0.5}, idle=True).overlap == 0.5
    assert change(Config(), {"overlap": 0, "last_lr": 0}) == Config(overlap=0)
    with pytest.raises(UserError, match=r"^overlap=0\.5: does nothing without tile$"):
        change(Config(), {"overlap": 0.5})


@pytest.mark.parametrize("name", REGISTRY)
def test_what_a_setting_needs_is_a_setting_with_such_a_value(name):
    config = method_class(name).config_class()
    for key, need in config.needs.items():
        other, _, values = need.partition("=")
        assert key in kinds(config)
        for value in values.split("|") if values else ():
            change(config(), {other: value})


@pytest.mark.parametrize("name", REGISTRY)
def test_drawn_defects_can_decide_whether_maps_are_compared(name):
    for config in method_class(name).presets.values():
        assert change(config, {"places": "auto", "compare_maps": "auto"}).compare_maps == "auto"
