"""Presets, --set and config.toml."""

from dataclasses import asdict

import pytest

from vitlite.engine.settings import RunSettings, apply_overrides, load_settings, preset_config, save_settings
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


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("epochs", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("epoch=3", "no such option"),
        ("epochs=many", "whole number"),
        ("epochs=0", "at least 1"),
        ("epochs=2.5", "whole number"),
        ("lr=0", "above 0"),
        ("lr=nan", "above 0"),
        ("lr=-1", "above 0"),
        ("induction=maybe", "true or false"),
        ("strides=a", "numbers with commas"),
        ("holdout=1", "below 1"),
        ("schedule=linear", "not one of"),
        ("precision=half", "not one of"),
        ("weight_decay=-1", "at least 0"),
        ("batch_size=0", "at least 1"),
    ],
)
def test_wrong_overrides(override, says):
    with pytest.raises(UserError, match=says) as error:
        apply_overrides(preset_config("sivt", "quick"), [override])
    assert "\n" not in str(error.value)


def test_unknown_preset_and_method():
    with pytest.raises(UserError, match="paper, quick"):
        preset_config("sivt", "slow")
    with pytest.raises(UserError, match="sivt"):
        preset_config("patchcore", "quick")


def test_config_file_repeats_the_settings(tmp_path):
    config = apply_overrides(preset_config("sivt", "quick"), ["strides=2,4", "lr=0.00003"])
    settings = RunSettings("sivt", "/data/ü b", "bottle,cable", "quick", 7, config)
    save_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings
    assert asdict(load_settings(tmp_path).config) == asdict(config)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no config.toml"),
        ("nonsense", "cannot be read"),
        ("[run]\n", "cannot be read"),
        ('[run]\nmethod = "sivt"\n[config]\n', "incomplete"),
        ('[run]\nmethod = "sivt"\n[config]\nfuture = 1\n', "newer vitlite"),
        ('[run]\nmethod = "other"\n[config]\n', "method=other"),
    ],
)
def test_damaged_config_files(tmp_path, text, says):
    if text is not None:
        (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UserError, match=says):
        load_settings(tmp_path)
