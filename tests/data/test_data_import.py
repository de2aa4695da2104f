"""The public names of the room."""

import pytest

import vitlite.data


def test_public_names():
    assert set(vitlite.data.__all__) <= set(dir(vitlite.data))
    for name in vitlite.data.__all__:
        assert getattr(vitlite.data, name) is not None
    assert callable(vitlite.data.check)
    with pytest.raises(AttributeError, match="nothing"):
        _ = vitlite.data.nothing
