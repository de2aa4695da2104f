"""Presets, settings by name and config.toml."""

import math
import tomllib
from dataclasses import asdict

import pytest

from vitlite.engine.settings import (
    RunSettings,
    apply_overrides,
    dumps,
    load_settings,
    new_settings,
    preset_config,
    save_settings,
)
from vitlite.errors import UserError


def test_overrides_take_the_type_of_the_field():
    config = apply_overrides(
        preset_config("sivt", "paper"),
        ["epochs=3", "lr=2e-3", "induction=false", "strides=4, 8,16", "backbone=resnet18"],
    )
    assert (config.epochs, config.lr, config.induction, config.strides) == (3, 2e-3, False, (4, 8, 16))
    assert config.backbone == "resnet18"


def test_epochs_replace_a_length_in_steps():
    quick = preset_config("sivt", "quick")
    assert quick.steps > 0
    assert apply_overrides(quick, ["epochs=3"]).steps == 0
    assert apply_overrides(quick, ["epochs=3", "steps=7"]).steps == 7
    assert apply_overrides(quick, ["lr=1"]).steps == apply_overrides(quick, ["warmup_epochs=1"]).steps == quick.steps
    for method, key in (("isstad", "mae_epochs"), ("vtadl", "density_epochs")):
        assert apply_overrides(preset_config(method, "quick"), [f"{key}=3"]).steps == 0


def test_unknown_preset_and_method():
    with pytest.raises(UserError, match=r"^preset=slow: .*paper, quick"):
        preset_config("sivt", "slow")
    with pytest.raises(UserError, match=r"^method=patchcore: .*sivt"):
        preset_config("patchcore", "quick")


@pytest.mark.parametrize(
    ("data", "category", "found"),
    [(None, None, "all"), (None, "wood", "wood"), ("/parts", None, ""), ("/parts", "nut", "nut")],
)
def test_data_of_a_new_run(data, category, found):
    settings = new_settings("sivt", preset_config("sivt", "quick"), data, category)
    assert (settings.data, settings.category) == (data or "synthetic", found)


def test_config_file_repeats_the_settings(tmp_path):
    config = apply_overrides(preset_config("sivt", "quick"), ["strides=2,4", "lr=0.00003"])
    settings = RunSettings("sivt", "/data/ü b", "bottle,cable", "quick", 7, config)
    save_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings
    assert asdict(load_settings(tmp_path).config) == asdict(config)


def test_tables_as_toml():
    """Strings with quotes, line breaks of TOML and of Unicode alone, and control characters; numbers of any size."""
    breaks = "\x0b\x0c\x1c\x85\u2028\u2029"
    tables = {
        "run": {"data": 'C:\\päth "x"\n\x7f', "breaks": f"/parts{breaks}of the line{breaks}", "seed": 3, "empty": ""},
        "config": {"flag": True, "off": False, "strides": [2, 4], "sizes": [0.5, 2.0], "none": []},
    }
    assert tomllib.loads(dumps(tables)) == tables


@pytest.mark.parametrize("value", [1e-4, 1.0, 123456789.0, 1e22, 1e100, 5e-324, math.pi, math.inf])
def test_floats_stay_floats(value):
    back = tomllib.loads(dumps({"t": {"x": value}}))["t"]["x"]
    assert isinstance(back, float)
    assert back == value
