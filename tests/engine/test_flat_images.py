"""A black frame among the good images is named in training: a run that learned from it calls black frames good."""

import logging

import numpy as np
import pytest

from vitlite import train


@pytest.mark.parametrize("tile", [0, 64])
def test_a_good_image_of_one_colour_is_named(put, tmp_path, caplog, tile):
    rng = np.random.default_rng(0)
    for number in range(6):
        put(tmp_path / f"parts/{number}.png", rng.integers(0, 255, (96, 96, 3), np.uint8))
    put(tmp_path / "parts/black.png", np.zeros((96, 96, 3), np.uint8))
    with caplog.at_level(logging.WARNING, "vitlite"):
        train(
            tmp_path / "parts",
            tmp_path / "run",
            method="knn",
            weights="none",
            image_size=64,
            tile=tile,
            folds=0,
            holdout=0.3,
        )
    (line,) = [record.getMessage() for record in caplog.records if "one colour" in record.getMessage()]
    assert line.startswith("1 good image has one colour all over")
    assert "parts/black.png; remove it" in line
