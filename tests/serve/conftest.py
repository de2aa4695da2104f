"""What several tests of the server share."""

import pytest
from small_server import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of a model that loads at once."""
    return write_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder for images that are marked as good, which is not there yet."""
    return tmp_path_factory.mktemp("kept") / "it's good"
