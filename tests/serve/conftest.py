"""What the tests of the server's answers and of its page share."""

import pytest
from small_server import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of a model that loads at once; its name has to be quoted in a shell."""
    return write_model(tmp_path_factory.mktemp("model") / "it's small.onnx")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder for images that are marked as good, which is not there yet."""
    return tmp_path_factory.mktemp("kept") / "it's good"
