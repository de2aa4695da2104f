"""The example of ``ssim`` in a foreign training loop runs, learns, and finds the scratch."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ssim_autoencoder.py"


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the examples are in the clone only")
def test_an_autoencoder_learns_with_ssim_and_finds_a_scratch():
    main = runpy.run_path(str(EXAMPLE))["main"]
    untrained, _, _ = main(["--steps", "1"])
    similarity, inside, outside = main(["--steps", "120"])
    assert similarity > untrained + 0.3
    assert inside > 1.3 * outside
