"""config.toml, with and without a TOML reader in the standard library."""

import math

import pytest

from vitlite.engine import settings as toml

TABLES = {
    "run": {"method": "sivt", "data": 'C:\\päth "x"\n\x7f', "seed": 3, "empty": ""},
    "config": {
        "lr": 1e-4,
        "large": 1e22,
        "tiny": 1e-300,
        "whole": 4.0,
        "flag": True,
        "off": False,
        "strides": [2, 4],
        "none": [],
    },
}


def test_round_trip():
    assert toml.loads(toml.dumps(TABLES)) == TABLES


def test_reader_for_python_3_10():
    assert toml.loads_plain(toml.dumps(TABLES)) == TABLES


@pytest.mark.parametrize("space", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_line_breaks_of_unicode_within_a_string(space):
    tables = {"run": {"data": f"/parts{space}of the line{space}", "seed": 3}}
    assert toml.loads_plain(toml.dumps(tables)) == tables
    assert toml.loads_plain(toml.dumps(tables).replace("\n", "\r\n")) == tables
    assert toml.loads(toml.dumps(tables)) == tables


def test_readers_agree_with_the_standard_library():
    tomllib = pytest.importorskip("tomllib")
    text = toml.dumps(TABLES)
    assert tomllib.loads(text) == toml.loads_plain(text)
    assert isinstance(toml.loads_plain(text)["config"]["whole"], float)


@pytest.mark.parametrize("text", ["lr = 1", "[a]\nnonsense", "[a]\nx = {", "[a]\nx = "])
def test_damaged(text):
    with pytest.raises(ValueError, match=r".+"):
        toml.loads_plain(text)


def test_floats_stay_floats():
    for value in (1e-4, 1.0, 123456789.0, 1e100, 5e-324, math.pi):
        back = toml.loads(toml.dumps({"t": {"x": value}}))["t"]["x"]
        assert isinstance(back, float)
        assert back == value
