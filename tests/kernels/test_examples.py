"""The examples, which use one operator in a training loop of their own, run, learn, and find the defect."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are in the clone only")


def main_of(name):
    return runpy.run_path(str(EXAMPLES / name))["main"]


def test_an_autoencoder_learns_with_a_memory_and_finds_a_stain():
    first, last, inside, outside = main_of("memory_bottleneck.py")(150)
    # Grey everywhere would be 0.0625 off, and four times as far from the stain.
    assert last < 0.03 < first
    assert inside > 3 * outside


def test_an_autoencoder_learns_with_ssim_and_finds_a_scratch():
    main = main_of("ssim_autoencoder.py")
    untrained, _, _ = main(1)
    similarity, inside, outside = main(120)
    assert similarity > untrained + 0.3
    assert inside > 1.3 * outside
