"""Small vision transformers for the tests of methods."""

from dataclasses import replace

import pytest

from vitlite.backbones import vit

REAL = dict(vit.NETWORKS)


@pytest.fixture(scope="module", autouse=True)
def small_transformers():
    """The smallest ones are smaller still; in a test that asks for ``real_transformers`` they are as they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("dinov2_vits14", "dinov2_vits14_reg"):
            patch.setitem(vit.NETWORKS, name, replace(REAL[name], dim=32, heads=2, depth=4, side=4))
        yield


@pytest.fixture
def real_transformers(monkeypatch):
    for name, network in REAL.items():
        monkeypatch.setitem(vit.NETWORKS, name, network)
