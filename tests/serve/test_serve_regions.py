"""The server looks where the run does, also before the first request."""

import io

import numpy as np
import pytest
from grey_predictor import Grey, calibration_of
from PIL import Image

from vitlite.images.reading import ImageError
from vitlite.images.regions import Regions
from vitlite.images.scale import Reading
from vitlite.serve.scoring import Scorer, as_png
from vitlite.serve.settings import Settings


def test_a_region_for_each_category(tmp_path):
    upper = np.zeros((16, 12), bool)
    upper[:8] = True
    detector = Grey()
    detector.reading = Reading(regions=Regions({"nut": upper, "cable": ~upper}))
    own = {"image_threshold": 100.0, "good_scores": [10.0, 200.0]}
    detector.calibration = calibration_of([10.0, 200.0]) | {"categories": {"nut": own, "cable": own}}
    scorer = Scorer(detector, Settings("run"), tmp_path)
    scorer.warm_up()  # with an image of the region's size
    assert scorer.facts()["needs_category"] is True
    assert Scorer(detector, Settings("run", category="nut"), tmp_path).facts()["needs_category"] is False
    image = np.zeros((16, 12, 3), np.uint8)
    image[8:] = 255
    dark, drawn = scorer.answer(as_png(image), "overlay", "nut", None)
    bright, _ = scorer.answer(as_png(image), "view", "cable", None)
    assert dark["score"] < 70 < 130 < bright["score"]  # half of the image is painted grey
    assert bright["boxes"] == ((0, 8, 12, 16),)
    assert bright["looked_at"] == 0.5
    assert np.asarray(Image.open(io.BytesIO(drawn)))[12:].max() == 255 // 2
    del detector.calibration["categories"]["cable"]  # calibrated with images of nuts alone
    without = Scorer(detector, Settings("run"), tmp_path)
    assert without.answer(as_png(image), "verdict", "cable", None)[0]["verdict"] == "defect"
    with pytest.raises(ImageError, match=r"the upload: its category, and so its region \(roi, ignore\), is not known"):
        scorer.answer(as_png(image), "verdict", None, None)
    with pytest.raises(ImageError, match="is 12x8, but its region"):
        scorer.answer(as_png(image[:8]), "verdict", "nut", None)
